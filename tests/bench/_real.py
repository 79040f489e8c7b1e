"""Real rows of the ten tasks and SmolLM2-135M, for benchmarks of evaluation. Not a benchmark.

Rows are built from the raw files beside the checkout by `jobs/runs/smollm2_135m.toml`, the model comes from its wheel;
both are made once into a folder under the user's cache. `ECELLM_BENCH_MODEL` names another folder with a model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ecellm.config.load import load_run
from ecellm.config.schema import Run
from ecellm.data.encode import Encoder
from ecellm.model.base import materialise
from ecellm.model.load import load_tokenizer
from ecellm.model.wheel import cache_folder
from ecellm.prompt import policy_of
from ecellm.records import Row
from ecellm.rows import read_rows
from ecellm.storage.local import LocalStorage
from ecellm.tasks.registry import TASKS, task
from tests.bench._common import say

ROOT = Path(__file__).resolve().parents[2]
SETTING = "IND_Diverse_Instruction"


@dataclass(frozen=True)
class Asked:
    """One row as every side is asked it."""

    task: str
    row: Row
    text: str
    ids: tuple[int, ...]
    limit: int


def run_file(out: Path, **settings: object) -> Run:
    """The run of the real files, with another OUT."""
    shared = os.environ.get("ECELLM_SHARED") or str(ROOT.parent / "shared")
    words = [f"--out={out}", f"--sources.root={shared}/data", *(f"--{key}={value}" for key, value in settings.items())]
    return load_run(str(ROOT / "jobs/runs/smollm2_135m.toml"), words)


def prepared() -> tuple[Run, str]:
    """A run whose OUT has rows and the base model, and the folder of the model that is measured."""
    from ecellm.ecinstruct.build import build

    out = Path(cache_folder()) / "bench"
    run = run_file(out)
    storage = LocalStorage(str(out))
    if not (out / "rows/COMPLETE").exists():
        say("building rows from the raw files")
    build(run)
    say("the base model")
    materialise(run, storage)
    return run, os.environ.get("ECELLM_BENCH_MODEL") or str(out / "base")


def mixed_rows(run: Run, folder: str, each: int, tasks: Sequence[str] = tuple(TASKS)) -> list[Asked]:
    """`each` rows of every task in file order, task after task: test rows first, then others to make up the number."""
    storage = LocalStorage(run.out)
    tokenizer = load_tokenizer(folder)
    policy = policy_of(tokenizer, template="alpaca", max_length=run.prepare.max_length, encoder_decoder=False)
    encoder = Encoder(tokenizer, policy, encoder_decoder=False)
    rows = [row for split in ("test", "val", "train") for row in read_rows(storage, split=split, setting=SETTING)]
    found: list[Asked] = []
    for name in tasks:
        mine = [row for row in rows if task(row.task).id == name][:each]
        assert len(mine) == each, f"{name} has {len(mine)} rows"
        for row in mine:
            text = TASKS[name].render(row, "alpaca")
            found.append(Asked(name, row, text, tuple(encoder.prompt(row)), TASKS[name].max_new_tokens))
    return found
