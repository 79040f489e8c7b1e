"""The driver's watch over a group, with a real board and no Ray: stops that nobody could hear, hangs that are told."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ecellm.errors import ClusterError, Stopped
from ecellm.session import fits
from ecellm.storage.local import LocalStorage
from ecellm.train import attempts, group
from ecellm.train.board import CHECKPOINT, Board, Order, Snapshot
from tests.train.toys import toy_run


class Here:
    """A board in this process, called as an actor is; `now` is its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.board = Board(lambda: self.now)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.board, name))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    import ray

    monkeypatch.setattr(ray, "get", lambda value: value)
    return Here()


def watch(here: Here, out: Path, stop: threading.Event, looks: int = 3, before: int = 0) -> Any:
    """Watch a group that ends after so many looks; `before` is the newest attempt of the groups before."""
    left = iter(range(looks, -1, -1))
    fitting = SimpleNamespace(ended=lambda seconds: next(left) == 0, selector={})
    run = toy_run(str(out))
    nothing: Any = SimpleNamespace(show=lambda snapshot: None, look=lambda: None)
    return group._watch(run, here, fitting, stop, nothing, nothing, before)  # type: ignore[arg-type]


def still(here: Here, step: int, phase: str, seconds: float) -> None:
    """Rank 0 comes to a place and stays there; its heart beats."""
    here.board.beat(0, step, phase)
    here.now += seconds
    here.board.beat(0, step, phase)


def test_a_stop_without_workers_ends_the_wait(here: Here, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match="no workers were there"):
        watch(here, tmp_path, stop)
    here.board.begin(1, {0: "n"})
    assert watch(here, tmp_path, stop).attempt == 1, "workers that live are waited for: they save"
    assert here.board.beat(0, 1, "x") is Order.STOP
    here.now += 31.0
    with pytest.raises(Stopped, match="no workers were there"):
        watch(here, tmp_path, stop)


def test_a_hang_is_told_once_and_closes_its_attempt(
    here: Here, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    storage = LocalStorage(str(tmp_path))
    here.board.begin(attempts.begin(storage), {0: "n"})
    still(here, 7, "forward", 1900.0)
    watch(here, tmp_path, threading.Event(), looks=4)
    assert capfd.readouterr().err.count("nothing got on for 1900 s") == 1
    assert here.board.beat(0, 7, "forward") is Order.ABORT
    assert attempts.history(storage)[0]["reason"].startswith("nothing got on for 1900 s")


def test_a_group_that_is_gone_hangs_no_more(here: Here, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nodes were looked for all the while; what the board shows is the group before."""
    here.board.begin(attempts.begin(LocalStorage(str(tmp_path))), {0: "n"})
    still(here, 7, "forward", 1900.0)
    watch(here, tmp_path, threading.Event(), before=1)
    assert "nothing got on" not in capfd.readouterr().err
    assert here.board.beat(0, 7, "forward") is Order.GO


def test_a_stop_that_meets_a_hang_is_given_to_the_next_group(here: Here, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    here.board.begin(attempts.begin(LocalStorage(str(tmp_path))), {0: "n"})
    still(here, 7, "forward", 1900.0)
    watch(here, tmp_path, stop)
    assert here.board.beat(0, 7, "forward") is Order.ABORT
    here.board.begin(2, {0: "n"})
    assert here.board.beat(0, 6, "data") is Order.STOP


@pytest.mark.parametrize(("seconds", "order"), [(1900.0, Order.GO), (2101.0, Order.ABORT)])
def test_a_long_save_is_no_hang_until_ranks_no_longer_wait_for_it(
    here: Here, tmp_path: Path, seconds: float, order: Order
) -> None:
    here.board.begin(attempts.begin(LocalStorage(str(tmp_path))), {0: "n"})
    still(here, 7, CHECKPOINT, seconds)
    watch(here, tmp_path, threading.Event())
    assert here.board.beat(0, 7, CHECKPOINT) is order


def test_a_wait_for_nodes_before_a_group_is_no_silence_of_its_workers(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board has heard of nobody since the group before; the new one has as long as any to come."""
    import ray

    monkeypatch.setattr(ray, "cluster_resources", dict)
    clock = iter(range(0, 10_000, 150))
    monkeypatch.setattr(group, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    here.board.begin(1, {0: "n"})
    here.now += 900.0
    assert watch(here, tmp_path, threading.Event(), looks=3).silent == 900.0
    with pytest.raises(ClusterError, match="no workers for 600 s after a failure"):
        watch(here, tmp_path, threading.Event(), looks=20)


def test_a_chosen_group_is_begun_again_as_often_as_said(tmp_path: Path) -> None:
    from ray.exceptions import RayActorError
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    run = toy_run(str(tmp_path))
    losses, lost = group.Losses(run), WorkerGroupError("died", {0: RayActorError()})
    gone = WorkerHealthCheckFailedError("gone", failure=RayActorError(preempted=True))
    taken = WorkerGroupError("taken away", {0: gone, 1: RuntimeError("closed by peer")})
    assert run.cluster.max_failures == 3
    told = [losses.again(error, Snapshot()) for error in (lost, taken, lost, taken, lost, taken, lost, taken)]
    assert told == [True, True, True, True, True, True, False, True]
    never = ControllerError(TimeoutError("no place"))
    assert losses.again(never, Snapshot(silent=500.0))
    assert not losses.again(never, Snapshot(silent=700.0))
    assert not losses.again(ValueError("ours"), Snapshot())


@pytest.mark.parametrize(
    ("wanted", "fitting"),
    [("spot", True), ("on-demand", False), ("!spot", False), ("!on-demand", True), ("in(a, spot)", True),
     ("!in(a, spot)", False), ("in(a,b)", False)],
)  # fmt: skip
def test_labels_are_compared_in_rays_words(wanted: str, fitting: bool) -> None:
    assert fits({"market": "spot", "other": "x"}, {"market": wanted}) is fitting
    assert fits({}, {"market": wanted}) is wanted.startswith("!")
    assert fits({}, {})
