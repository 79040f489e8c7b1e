"""One row of each task, in the input's real form."""

import json

from ecellm.records import Row
from ecellm.tasks.registry import TASKS

PRODUCT = {"product title": "Zorvex red steel lamp", "product brand": "Zorvex", "target attributes": "Color"}
TRIPLE = [{"attribute": "color", "value": "red", "source": "product title"}]
DOCUMENT = {"question": "what is the color?", "document": ["it came on monday", "the color is red", "fine " * 9]}
INPUTS = {
    "AVE": (PRODUCT, json.dumps(TRIPLE)),
    "PM": ({}, "yes"),
    "PRP": ({}, "B"),
    "SA": ("good", "A: very positive"),
    "SR": ([], "C"),
    "MPC": ({}, "A: exact"),
    "PSI": ({}, "no"),
    "QPR": ({"query": "red lamp", "product list": ["A: blue mug", "B: red lamp", "C: lamp"]}, "B,C,A"),
    "AP": (DOCUMENT, "yes"),
    "AG": (DOCUMENT, "it is red"),
}


def row(name: str, number: int) -> Row:
    value, output = INPUTS[name]
    return Row(
        split="test",
        task=TASKS[name].name,
        setting="IND_Diverse_Instruction",
        instruction="?",
        input=value if isinstance(value, str) else json.dumps(value),
        options=None,
        output=output,
        few_shot_example=None,
        id=f"{name}{number}",
        source="test",
    )
