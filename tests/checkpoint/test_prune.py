"""`ecellm checkpoints prune` keeps what can be used, not what has a marker."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ecellm.checkpoint.layout import COMPLETE, rank_file, step_folder
from ecellm.checkpoint.restore import steps
from ecellm.cli.checkpoints import app
from ecellm.storage.local import LocalStorage
from tests.checkpoint.test_checkpoints import put
from tests.train.toys import toy_llama


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """Five checkpoints."""
    made = LocalStorage(str(tmp_path / "out"))
    for step in (1, 2, 3, 4, 5):
        put(made, step, toy_llama(), tmp_path / "base")
    return made


def prune(storage: LocalStorage, *words: str) -> str:
    result = CliRunner().invoke(app, ["prune", storage.root, *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def spoil(storage: LocalStorage, step: int, how: str) -> None:
    key = f"{step_folder(step)}/{rank_file(1, 0, 1)}"
    data = storage.read(key)
    if how == "cut":
        storage.write(key, data[:-8])
    elif how == "flipped":
        storage.write(key, data[:-8] + b"????????")
    elif how == "gone":
        storage.delete(key)
    else:
        storage.write(f"{step_folder(step)}/{COMPLETE}", b"{}")


def test_whole_ones_go_by_age_and_only_when_told(storage: LocalStorage) -> None:
    said = prune(storage)
    assert [line.split("\t")[:2] for line in said.splitlines()] == [[step_folder(step), "may go"] for step in (1, 2, 3)]
    assert steps(storage)[0] == [1, 2, 3, 4, 5]
    assert "not whole" not in prune(storage, "--yes")
    assert steps(storage)[0] == [4, 5]


@pytest.mark.parametrize("how", ["cut", "gone", "marker"])
def test_what_is_not_whole_is_named_and_does_not_count(storage: LocalStorage, how: str) -> None:
    for step in (2, 4, 5):
        spoil(storage, step, how)
    said = prune(storage)
    assert [line.split("\t")[:2] for line in said.splitlines() if "not whole" in line] == [
        [step_folder(step), "not whole"] for step in (5, 4, 2)
    ]
    assert steps(storage)[0] == [1, 2, 3, 4, 5]
    prune(storage, "--yes")
    assert steps(storage)[0] == [1, 2, 3, 4, 5]  # step 1 is the second whole one
    spoil(storage, 1, how)
    prune(storage, "--yes")
    assert steps(storage)[0] == [3, 4, 5]  # the one that can be used, and what is newer than it


def test_nothing_goes_where_nothing_is_whole(storage: LocalStorage) -> None:
    for step in (1, 2, 3, 4, 5):
        spoil(storage, step, "cut")
    assert prune(storage, "--yes").count("not whole") == 5
    assert steps(storage)[0] == [1, 2, 3, 4, 5]


def test_changed_bytes_are_found_where_asked_for(storage: LocalStorage) -> None:
    spoil(storage, 5, "flipped")
    assert "not whole" not in prune(storage)
    assert f"{step_folder(5)}\tnot whole" in prune(storage, "--digests", "--yes")
    assert steps(storage)[0] == [3, 4, 5]
