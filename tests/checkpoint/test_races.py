"""How the durability benchmark judges two attempts at one step, and where it kills a writer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ecellm.checkpoint.layout import MANIFEST, step_folder
from ecellm.checkpoint.save import LostRace
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from tests.bench import durability
from tests.bench.durability import FAILED, REFUSED, Doomed, judged

ALONE = World(rank=0, size=1)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "VALUES", 1000)


def attempt(storage: LocalStorage, number: int) -> int:
    try:
        return durability._save(storage, 1, number, ALONE, lambda value: [value]).attempt
    except LostRace:
        return REFUSED


def test_a_later_attempt_that_is_handed_the_winners_manifest_is_right(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    outcomes = {1: attempt(storage, 1), 2: attempt(storage, 2)}
    assert outcomes == {1: 1, 2: 1}
    assert not judged(storage, outcomes)
    assert not judged(storage, {1: 1, 2: REFUSED})


def test_an_earlier_attempt_that_comes_late_is_refused(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    outcomes = {2: attempt(storage, 2), 1: attempt(storage, 1)}
    assert outcomes == {1: REFUSED, 2: 2}
    assert not judged(storage, outcomes)
    assert judged(storage, {1: 2, 2: 2})


@pytest.mark.parametrize("outcomes", [{1: 1, 2: 2}, {1: REFUSED, 2: 1}, {1: 1, 2: FAILED}, {1: FAILED, 2: REFUSED}])
def test_all_else_is_wrong(tmp_path: Path, outcomes: dict[int, int]) -> None:
    storage = LocalStorage(str(tmp_path))
    attempt(storage, 1)
    assert judged(storage, outcomes)


def test_a_manifest_of_the_loser_is_wrong(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    attempt(storage, 1)
    key = f"{step_folder(1)}/{MANIFEST}"
    storage.write(key, storage.read(key).replace(b'"attempt": 1,', b'"attempt": 2,'))
    assert judged(storage, {1: 1, 2: 1})


@pytest.mark.timeout(120)
def test_processes_race_and_are_judged(tmp_path: Path) -> None:
    wrong: list[str] = []
    durability._race(LocalStorage(str(tmp_path)), 0, wrong)
    assert not wrong


def test_a_folders_write_has_points_between_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsync", "replace", "link", "unlink"):
        monkeypatch.setattr(os, name, getattr(os, name))  # put back after the test
    doomed = Doomed(LocalStorage(str(tmp_path)), -1)
    durability._within_writes(doomed)
    doomed.write("k", b"x")
    assert doomed.count == 5  # before; before fsync, rename, fsync of the folder; after
    doomed.write_new("new", b"x")
    assert doomed.count == 11  # before; before fsync, link, unlink, fsync of the folder; after
