"""Groups of workers under Ray Train: start one, watch it, start the next. The only Ray Train of the driver.

Three things end a group without an end of the run: a lost worker (Ray starts the group again, or this module where
nodes are chosen by label), a node that is about to be taken away, and room for more workers. For the last two this
module asks the workers to save and leave, and starts a new group at once, so that no step is lost and nobody waits for
the node to die. The one decision: Ray Train runs in a thread of its own, while this one shows progress, takes signals
and keeps the deadlines; Ray Train itself would wait for missing workers for ever.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from typing import Any

from ecellm.config.schema import Run
from ecellm.console import note, progress
from ecellm.errors import ClusterError, Stopped
from ecellm.model.base import placed
from ecellm.nodes import code_digest
from ecellm.placement import place
from ecellm.session import ray_session
from ecellm.train.board import Board, Order, Snapshot
from ecellm.train.ends import close, cluster_error, keep_log, line_of, too_late
from ecellm.train.moves import RAY_SEES_S, Nodes, most_workers
from ecellm.train.probes import Probes, spare_cpus
from ecellm.train.progress import Display

_POLL_S = 0.5
_NOBODY_S = 30.0
"""A group that is silent for so long is gone, or not there yet: nobody would take an order."""
_LONGER_S = 300.0
"""Ranks that wait for each other while state is stored give up first, and name what they waited for."""


def train_in_groups(run: Run, stop: threading.Event) -> dict[str, Any]:
    """Train under Ray until the run has ended. Returns attempts, workers and the steps it went on from.

    Raises:
        EcellmError: what the workers ended with; ClusterError where they failed or did not come.
    """
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    if run.cluster.train_labels or run.cluster.train_markets:  # then other nodes are asked for
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{run.cluster.market_wait_s}")
    if run.cluster.min_workers:  # a node that died counts as a place for a while: do not wait for it longer than that
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{RAY_SEES_S:g}")
    cpus = run.cluster.workers * run.cluster.cpus_per_worker + spare_cpus(run)
    with tempfile.TemporaryDirectory(prefix="ecellm-ray-") as private, ray_session(run, cpus=cpus):
        import ray

        try:
            snapshot = _groups(run, private, stop)
        except ray.exceptions.RayError as error:
            raise ClusterError(
                "Ray has lost what this process had in it", found=line_of(error), expected="a cluster that stays up",
                mend="look at the head node, then run the same command to go on from the newest checkpoint",
            ) from error  # fmt: skip
    return {"attempts": snapshot.attempt, "workers": snapshot.workers, "resumed": list(snapshot.resumed)}


def _groups(run: Run, private: str, stop: threading.Event) -> Snapshot:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # The board lives where the driver lives: on a worker's node it would go with that node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(Board)
    board = actor.options(scheduling_strategy=here).remote()
    probes = Probes(run)
    with progress() as shown:
        display, losses = Display(shown), Losses(run)
        while True:
            snapshot = _one_group(run, board, private, stop, display, probes, losses)
            if not snapshot.moved:
                break
    failure = ray.get(board.failure.remote())
    if failure is not None:
        raise failure
    probes.finish(stop)
    return snapshot


def _one_group(
    run: Run, board: Any, private: str, stop: threading.Event, display: Display, probes: Probes, losses: Losses
) -> Snapshot:
    """One run of Ray Train, with as many starts of the group as it makes itself.

    It makes one where nodes are chosen by label or market: after a loss they are chosen anew, since the spot nodes that
    went may not come back, and Ray Train would wait for them. `moved` is true then.
    """
    import ray

    cluster = run.cluster
    chosen = cluster.train_labels or cluster.train_markets  # without them Ray Train finds its own places
    selector = place(run, "train", cluster.min_workers or cluster.workers, stop.is_set) if chosen else {}
    before = ray.get(board.snapshot.remote()).attempt  # until workers come, the board shows the group before
    fitting = _Fit(run, board, private, selector)
    snapshot = _watch(run, board, fitting, stop, display, probes, before)
    error = fitting.error
    if error is not None and ray.get(board.failure.remote()) is None:
        log = keep_log(run, snapshot, error)
        if not selector or not losses.again(error, snapshot):
            raise cluster_error(error, snapshot, log) from error
        note(f"{line_of(error)}: looking for nodes again ({log})")
        return replace(snapshot, moved=True)
    return snapshot


class Losses:
    """Counts lost groups, as Ray Train counts them where it replaces workers itself: a node that was taken away with
    notice is none.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._lost = run, 0

    def again(self, error: BaseException, snapshot: Snapshot) -> bool:
        """Whether nodes should be looked for again after this error."""
        from ray.train import TrainingFailedError, WorkerGroupError

        if not isinstance(error, TrainingFailedError):
            return False
        if isinstance(error, WorkerGroupError) and not any(map(_taken, error.worker_failures.values())):
            self._lost += 1
            return self._lost <= self._run.cluster.max_failures
        return snapshot.silent <= self._run.cluster.startup_timeout_s


def _taken(failure: BaseException) -> bool:
    """Whether a worker went with a node that was taken away; Ray Train wraps what the worker's actor died of."""
    return bool(getattr(getattr(failure, "health_check_failure", failure), "preempted", False))


class _Fit:
    """Ray Train in a thread; `error` is what it ended with."""

    def __init__(self, run: Run, board: Any, private: str, selector: dict[str, str]) -> None:
        self.error: BaseException | None = None
        self.selector = selector
        self._trainer = _trainer(run, board, private, selector)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, waiting for so long."""
        self._thread.join(timeout=seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:  # handed to the driver's thread, which raises it
            self.error = error


def _trainer(run: Run, board: Any, private: str, selector: dict[str, str]) -> Any:
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api import config

    from ecellm.train.member import train_on_ray

    settings: Any = config.RunConfig  # the public stubs still say v1's
    cluster = run.cluster
    gpus, cpus = cluster.gpus_per_worker, cluster.cpus_per_worker
    resources: dict[str, float] = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    most = most_workers(run, selector)
    elastic = 0 < cluster.min_workers < most
    # Ray would grow a group by killing it; `_watch` asks it to save first.
    grow: dict[str, Any] = {"elastic_resize_monitor_interval_s": 1e9} if elastic else {}
    return TorchTrainer(
        train_on_ray,
        # A worker's working directory is one of Ray's own.
        train_loop_config={"run": run.model_dump_json(), "placed": placed(run).model_dump_json(), "board": board,
                           "code": code_digest()},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=config.ScalingConfig(
            num_workers=(cluster.min_workers, most) if elastic else most,
            use_gpu=bool(gpus), resources_per_worker=resources, label_selector=selector or None, **grow,
        ),
        # Ray resumes by name from its own storage; ours is where checkpoints live, so its name is never used again.
        run_config=settings(
            name=f"{run.name}-{uuid.uuid4().hex[:12]}", storage_path=private,
            failure_config=config.FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0)
            if selector else config.FailureConfig(max_failures=cluster.max_failures, max_preemption_failures=-1),
            logging_config=config.LoggingConfig(log_level="CRITICAL"),
        ),
    )  # fmt: skip


def _watch(
    run: Run, board: Any, fitting: _Fit, stop: threading.Event, display: Display, probes: Probes, before: int = 0
) -> Snapshot:
    """Show progress and give orders until Ray Train ends; `before` is the newest attempt of the groups before.

    Raises:
        ClusterError: no worker has been heard of for too long.
        Stopped: somebody asked to stop, and there are no workers that could save anything.
    """
    import ray

    nodes, asked, hung, began = Nodes(run, fitting.selector, before), False, before, time.monotonic()
    while True:
        over = fitting.ended(_POLL_S)
        if stop.is_set() and not asked:
            asked = True
            note("asked to stop: the workers save first")
            ray.get(board.order.remote(Order.STOP))
        snapshot: Snapshot = ray.get(board.snapshot.remote())
        display.show(snapshot)
        probes.look()
        if over:
            return snapshot
        if asked and (not snapshot.attempt or snapshot.silent > _NOBODY_S):
            raise Stopped(
                "stopped while no workers were there; what was saved before stays", mend="run the same command to go on"
            )
        # A group may begin after a wait for nodes, which had a limit of its own.
        if min(snapshot.silent, time.monotonic() - began) > run.cluster.startup_timeout_s:
            raise too_late(run, snapshot, ray.cluster_resources())
        if snapshot.still > _patience(run, snapshot) and snapshot.attempt > hung:
            hung, where = snapshot.attempt, ray.get(board.hanging.remote())
            note(f"nothing got on for {snapshot.still:.0f} s: {where}; starting again")
            ray.get(board.order.remote(Order.ABORT))
            close(run, snapshot, f"nothing got on for {snapshot.still:.0f} s: {where}")
        if reason := nodes.reason_to_move(snapshot):
            note(f"{reason}: the workers save and go on elsewhere")
            ray.get(board.order.remote(Order.MOVE))


def _patience(run: Run, snapshot: Snapshot) -> float:
    """Longest that nothing may get on, in seconds: reading or writing all of the state is one phase, however long."""
    limit = run.cluster.hang_timeout_s
    return max(limit, run.checkpoint.timeout_s) + _LONGER_S if snapshot.storing else limit
