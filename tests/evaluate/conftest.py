"""An OUT folder with real rows, a real tokenizer and a tiny random model, made once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ecellm.config.schema import Run
from ecellm.records import Row
from ecellm.rows import write_rows
from ecellm.stage import publish
from ecellm.storage.local import LocalStorage

BOTH = ("IND_Diverse_Instruction", "OOD_Diverse_Instruction")


STARS = '["A: very positive", "B: positive", "C: neutral", "D: negative", "E: very negative"]'


def a_row(number: int, task: str = "Product_Matching", split: str = "test", setting: str = BOTH[0]) -> Row:
    """Row `number`: a pair of products, or the sentiment of a review."""
    matching = task == "Product_Matching"
    pair = {"entity 1": {"title": f"lamp {number}"}, "entity 2": {"title": f"lamp {number + number % 2}"}}
    return Row(
        split=split,
        task=task,
        setting=setting,
        instruction="Say whether these are the same." if matching else "Name the sentiment.",
        input=json.dumps(pair) if matching else f"a lamp, {number} times good",
        options=None if matching else STARS,
        output=("yes", "no")[number % 2] if matching else ("A: very positive", "B: positive")[number % 2],
        few_shot_example=None,
        id=f"{task}-{split}-{number}",
        source="made up",
    )


def some_rows() -> list[Row]:
    """10 test rows of two tasks in two settings (the same samples), and 6 training rows of each."""
    rows = [a_row(n, task, "train") for task in ("Product_Matching", "Sentiment_Analysis") for n in range(6)]
    for setting in BOTH:
        rows += [a_row(n, "Product_Matching", setting=setting) for n in range(6)]
    return rows + [replace(a_row(n, "Sentiment_Analysis"), setting=BOTH[0]) for n in range(4)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `out` with rows, base, model and prompt.json; copy it before writing."""
    from ecellm.config.schema import TinySizes
    from ecellm.model.tiny import make_model, train_tokenizer
    from ecellm.prompt import FILE, policy_of

    out = tmp_path_factory.mktemp("trained") / "out"
    storage = LocalStorage(str(out))
    write_rows(storage, "rows", some_rows())
    publish(storage, "rows", "rows-1")
    tokenizer = train_tokenizer([row.input + row.output for row in some_rows()], 400, "alpaca")
    policy = policy_of(tokenizer, template="alpaca", max_length=512, encoder_decoder=False)
    for name, seed in (("base", 1), ("model", 2)):
        sizes = TinySizes(hidden=32, layers=2, heads=2, vocab=400)
        make_model(sizes, tokenizer, max_length=512, seed=seed).save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)
        (out / name / FILE).write_bytes(policy.to_json())
        publish(storage, name, name)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A run over a fresh copy of the trained folder."""
    import shutil

    shutil.copytree(trained, tmp_path / "out")
    return Run.model_validate(
        {
            "name": "toy",
            "out": str(tmp_path / "out"),
            "model": {"base": "tiny"},
            "evaluate": {"settings": BOTH, "tasks": ["PM", "SA"], "bootstrap": 20, "batch_tokens": 600},
        }
    )
