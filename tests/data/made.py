"""Made-up rows, and a run over them."""

import json
from typing import Any

from ecellm.config.schema import Run
from ecellm.records import Row
from ecellm.rows import write_rows
from ecellm.stage import publish
from ecellm.storage.base import Storage


def make_row(number: int, split: str = "train", setting: str = "IND_Diverse_Instruction", words: int = 12) -> Row:
    """A row of product matching, or every third one of multiclass classification."""
    text = " ".join(f"word{(number * 7 + k) % 23}" for k in range(words))
    if number % 3:
        name, options, output = "Product_Matching", None, "yes" if number % 2 else "no"
    else:
        name, options, output = "Multiclass_Product_Classification", '["A: exact", "B: substitute"]', "A: exact"
    return Row(
        split=split, task=name, setting=setting, instruction="Say whether these are the same product.",
        input=json.dumps({"entity 1": {"title": text}, "entity 2": {"title": f"lamp {number}"}}),
        options=options, output=output, few_shot_example=None, id=f"{split}-{number}", source="made up",
    )  # fmt: skip


def put_rows(storage: Storage, rows: list[Row]) -> None:
    """Rows as build leaves them."""
    write_rows(storage, "rows", rows)
    publish(storage, "rows", "f0")


def make_run(out: str, **changes: Any) -> Run:
    """A run of the tiny preset at its smallest."""
    tiny = {"base": "tiny", "tiny": {"hidden": 16, "layers": 1, "heads": 2, "vocab": 320}}
    prepare = {"max_length": 256, "shard_rows": 8}
    return Run.model_validate({"name": "t", "out": out, "model": tiny, "prepare": prepare, **changes})
