"""The rules that any model must beat answer every row, in the task's form, alike on every run."""

import json

import pytest

from ecellm.baselines.trivial import answers
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


@pytest.mark.parametrize("name", TASKS)
def test_every_rule_answers_every_row(name: str) -> None:
    rows = [row(name, k) for k in range(5)]
    found = answers(TASKS[name], rows, rows, 1)
    assert len(found) >= 2
    for rule, texts in found.items():
        assert len(texts) == 5, rule
        assert all(TASKS[name].parse(text) is not None for text in texts), rule
    assert answers(TASKS[name], rows, rows, 1) == found
    assert all(len(texts) == 5 for texts in answers(TASKS[name], [], rows, 1).values())


def test_rules_that_copy_find_what_is_there() -> None:
    rows = [row("AVE", 0)]
    assert json.loads(answers(TASKS["AVE"], rows, rows, 1)["copy_known_value"][0]) == TRIPLE
    ranks = [row("QPR", 0)]
    assert answers(TASKS["QPR"], ranks, ranks, 1)["query_overlap"] == ["B,C,A"]
    asked = [row("AG", 0)]
    assert answers(TASKS["AG"], asked, asked, 1)["overlap_snippet"] == ["the color is red"]
