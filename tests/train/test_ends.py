"""How an attempt ends is told whatever ended it: by a worker of Ray, and by the plain engine in this process."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ecellm.config.schema import Run
from ecellm.errors import DataError, EcellmError, StorageError
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train import attempts, launch, member, worker
from ecellm.train.board import Board
from tests.train.toys import toy_run

TROUBLES = [
    (RuntimeError("CUDA out of memory.\n\nTried to allocate 2 GiB"), "RuntimeError: CUDA out of memory."),
    (StorageError("out/x: cannot write", mend="free some space"), "out/x: cannot write"),
]


def ranks(monkeypatch: pytest.MonkeyPatch, ended: Exception | None) -> None:
    """Every rank goes on after step 4, comes to step 7 and ends so."""

    def run_rank(run: Run, world: World, hooks: Any, given: Run | None = None) -> EcellmError | None:
        hooks.begin(4)
        hooks.at(7, "update")
        if ended is not None and not isinstance(ended, DataError):
            raise ended
        return ended

    monkeypatch.setattr(worker, "run_rank", run_rank)
    monkeypatch.setattr(member, "run_rank", run_rank)


def log_of(out: Path) -> str:
    [log] = (out / "attempts").glob("*.log")
    return log.read_text()


@pytest.mark.parametrize(("trouble", "reason"), TROUBLES)
def test_the_plain_engine_tells_what_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception, reason: str
) -> None:
    ranks(monkeypatch, trouble)
    with pytest.raises(type(trouble)):
        launch._in_process(toy_run(str(tmp_path)), LocalStorage(str(tmp_path)), threading.Event())
    [said] = attempts.history(LocalStorage(str(tmp_path)))
    assert (said["reason"], said["after"], said["step"]) == (reason, 4, 7)
    assert "run_rank" in log_of(tmp_path)


def test_the_plain_engine_tells_its_steps_when_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks(monkeypatch, None)
    facts = launch._in_process(toy_run(str(tmp_path)), LocalStorage(str(tmp_path)), threading.Event())
    assert facts["resumed"] == [4]
    [said] = attempts.history(LocalStorage(str(tmp_path)))
    assert (said["reason"], said["after"], said["step"]) == ("done", 4, 7)


class Here:
    """A board in this process, called as an actor is."""

    def __init__(self) -> None:
        self.board = Board()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.board, name))


def one_rank(monkeypatch: pytest.MonkeyPatch, out: Path, rank: int) -> Board:
    import ray

    monkeypatch.setattr(ray, "get", lambda value: value)
    run, world, board, storage = toy_run(str(out)), World(rank=rank, size=2), Here(), LocalStorage(str(out))
    hooks = member.RayHooks(board, run, world, attempts.newest(storage) or attempts.begin(storage))
    try:
        member._train(run, run, world, hooks, board, storage)
    finally:
        hooks.close()
    return board.board


@pytest.mark.parametrize(("trouble", "reason"), TROUBLES)
def test_a_rank_of_ray_tells_what_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception, reason: str
) -> None:
    ranks(monkeypatch, trouble)
    with pytest.raises(type(trouble)):
        one_rank(monkeypatch, tmp_path, 1)
    [said] = attempts.history(LocalStorage(str(tmp_path)))
    assert (said["reason"], said["rank"], said["step"]) == (reason, 1, 7)
    assert "run_rank" in log_of(tmp_path)


def test_an_end_that_all_ranks_agree_on_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks(monkeypatch, DataError("step 7: the loss is not a finite number"))
    assert one_rank(monkeypatch, tmp_path, 0).failure() is not None
    [said] = attempts.history(LocalStorage(str(tmp_path)))
    assert (said["reason"], said["after"], said["step"]) == ("step 7: the loss is not a finite number", 4, 7)
    assert not list((tmp_path / "attempts").glob("*.log"))
