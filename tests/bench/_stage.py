"""A small OUT over the real rows in which the stage `evaluate` can be run again and again. Not a benchmark."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ecellm.config.schema import Run
from ecellm.model.load import load_tokenizer
from ecellm.prompt import FILE, policy_of
from tests.bench._real import SETTING, prepared


def fresh_out(out: Path) -> Run:
    """A run whose `out` has the real rows and the base model (large files are links), and nothing else."""
    made, folder = prepared()
    for name in ("rows", "base"):
        source = folder if name == "base" else os.path.join(made.out, name)
        shutil.copytree(source, out / name, copy_function=_link)
    tokenizer = load_tokenizer(folder)
    policy = policy_of(tokenizer, template="alpaca", max_length=made.prepare.max_length, encoder_decoder=False)
    (out / FILE).write_bytes(policy.to_json())
    return changed(made, out=str(out), evaluate={"settings": (SETTING,), "bootstrap": 100})


def changed(run: Run, **sections: Any) -> Run:
    """The run with some settings of some sections changed."""
    whole = run.model_dump()
    for name, value in sections.items():
        whole[name] = {**whole[name], **value} if isinstance(value, dict) else value
    return Run.model_validate(whole)


def _link(source: str, target: str) -> None:
    if not source.endswith((".safetensors", ".parquet")):  # the others may be written over
        shutil.copy2(source, target)
        return
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
