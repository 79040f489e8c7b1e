"""A trace holds the steps that were asked for, after the first; one that cannot be kept ends nothing."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
import torch

from ecellm.errors import StorageError
from ecellm.storage.local import LocalStorage
from ecellm.train.profile import Profile
from tests.train.test_loop import Watcher, go


def traced(out: Path, steps: int, said: list[str], of: int = 5, storage: LocalStorage | None = None) -> list[str]:
    """Names of the steps in the trace, when training has `of` of them."""
    storage = storage or LocalStorage(str(out))
    with Profile(storage, steps, "attempt-00001", said.append) as profile:
        for number in range(1, of + 1):
            with torch.profiler.record_function(f"step {number}"):
                torch.ones(2) + 1
            profile.step()
    path = out / "profile/attempt-00001.json.gz"
    return sorted(set(re.findall(r"step \d+", gzip.decompress(path.read_bytes()).decode()))) if path.exists() else []


def test_steps_after_the_first_are_traced(tmp_path: Path) -> None:
    said: list[str] = []
    assert traced(tmp_path, 2, said) == ["step 2", "step 3"]
    assert said == [f"trace of 2 steps: {tmp_path}/profile/attempt-00001.json.gz"]


def test_a_run_that_ends_sooner_leaves_what_there_is(tmp_path: Path) -> None:
    said: list[str] = []
    assert traced(tmp_path, 9, said, of=3) == ["step 2", "step 3"]
    assert said == [f"trace of 2 steps: {tmp_path}/profile/attempt-00001.json.gz"]


def test_none_is_asked_for(tmp_path: Path) -> None:
    said: list[str] = []
    assert traced(tmp_path, 0, said) == said == []


class Full(LocalStorage):
    """Takes no trace."""

    def upload(self, path: str, key: str) -> None:
        if key.startswith("profile/"):
            raise StorageError(f"{key}: no space")
        super().upload(path, key)


@pytest.mark.parametrize("steps", [2, 9])
def test_a_trace_that_cannot_be_kept_is_told(tmp_path: Path, steps: int) -> None:
    said: list[str] = []
    assert traced(tmp_path, steps, said, storage=Full(str(tmp_path))) == []
    [line] = said
    assert line.endswith("could not be kept, training goes on: profile/attempt-00001.json.gz: no space")


def test_training_goes_on_without_its_trace(tmp_path: Path) -> None:
    hooks = Watcher()
    assert go(Full(str(tmp_path)), hooks, epochs=1, profile_steps=2) is None
    assert hooks.seen[-1].step == 5
    assert any("could not be kept" in line for line in hooks.said)
