"""Groups of workers under Ray Train: start one, watch it, start the next. The only Ray Train of the driver.

Three things end a group without an end of the run: a lost worker (Ray starts the group again), a node that is about to
be taken away, and room for more workers. For the last two this module asks the workers to save and leave, and starts a
new group at once, so that no step is lost and nobody waits for the node to die. The one decision: Ray Train runs in a
thread of its own, while this one shows progress, takes signals and keeps the deadlines; Ray Train itself would wait for
missing workers for ever.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import uuid
from typing import Any

from ecellm.config.schema import Run
from ecellm.console import note, progress
from ecellm.errors import ClusterError, EcellmError, Stopped
from ecellm.model.base import placed
from ecellm.nodes import code_digest
from ecellm.placement import place
from ecellm.provenance import masked
from ecellm.session import draining_nodes, free_places, ray_session, staying_places
from ecellm.storage.open import open_storage
from ecellm.train import attempts
from ecellm.train.board import Board, Order, Snapshot
from ecellm.train.probes import Probes, spare_cpus
from ecellm.train.progress import Display

_POLL_S = 0.5
_LOOK_S = 2.0
"""Seconds between two looks at the cluster's nodes."""
_NOBODY_S = 30.0
"""A group that is silent for so long is gone, or not there yet: nobody would take an order."""
_LONGER_S = 300.0
"""Ranks that wait for each other while state is stored give up first, and name what they waited for."""
_RAY_SEES_S = 22.0
"""Ray Train sizes a group by a list of nodes up to 20 s old: a group that starts earlier misses the room."""


def train_in_groups(run: Run, stop: threading.Event) -> dict[str, Any]:
    """Train under Ray until the run has ended. Returns attempts, workers and the steps it went on from.

    Raises:
        EcellmError: what the workers ended with; ClusterError where they failed or did not come.
    """
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    if run.cluster.min_workers:  # a node that died counts as a place for a while: do not wait for it longer than that
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{_RAY_SEES_S:g}")
    cpus = run.cluster.workers * run.cluster.cpus_per_worker + spare_cpus(run)
    with tempfile.TemporaryDirectory(prefix="ecellm-ray-") as private, ray_session(run, cpus=cpus):
        import ray

        try:
            snapshot = _groups(run, private, stop)
        except ray.exceptions.RayError as error:
            raise ClusterError(
                "Ray has lost what this process had in it", found=_line(error), expected="a cluster that stays up",
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
        display = Display(shown)
        while True:
            snapshot = _one_group(run, board, private, stop, display, probes)
            if not snapshot.moved:
                break
    failure = ray.get(board.failure.remote())
    if failure is not None:
        raise failure
    probes.finish(stop)
    return snapshot


def _one_group(run: Run, board: Any, private: str, stop: threading.Event, display: Display, probes: Probes) -> Snapshot:
    """One run of Ray Train, with as many starts of the group as it makes itself."""
    import ray

    cluster = run.cluster
    chosen = cluster.train_labels or cluster.train_markets  # without them Ray Train finds its own places
    selector = place(run, "train", cluster.min_workers or cluster.workers, stop.is_set) if chosen else {}
    fitting = _Fit(run, board, private, selector)
    snapshot = _watch(run, board, fitting, stop, display, probes)
    if fitting.error is not None and ray.get(board.failure.remote()) is None:
        log = _keep_log(run, snapshot, fitting.error)
        raise _cluster_error(fitting.error, snapshot, log) from fitting.error
    return snapshot


class _Fit:
    """Ray Train in a thread; `error` is what it ended with."""

    def __init__(self, run: Run, board: Any, private: str, selector: dict[str, str]) -> None:
        self.error: BaseException | None = None
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
    most = _most_workers(run)
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
            failure_config=config.FailureConfig(max_failures=cluster.max_failures, max_preemption_failures=-1),
            logging_config=config.LoggingConfig(log_level="CRITICAL"),
        ),
    )  # fmt: skip


def _most_workers(run: Run) -> int:
    """Workers of the next group: Ray would count a place on a node that is leaving, and wait for it in vain."""
    cluster = run.cluster
    if not cluster.min_workers or not draining_nodes():
        return cluster.workers
    staying = staying_places(cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker)
    return max(cluster.min_workers, min(cluster.workers, staying))


def _watch(run: Run, board: Any, fitting: _Fit, stop: threading.Event, display: Display, probes: Probes) -> Snapshot:
    """Show progress and give orders until Ray Train ends.

    Raises:
        ClusterError: no worker has been heard of for too long.
        Stopped: somebody asked to stop, and there are no workers that could save anything.
    """
    import ray

    nodes, asked, hung = _Nodes(run), False, 0
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
        if snapshot.silent > run.cluster.startup_timeout_s:
            raise _too_late(run, snapshot)
        if snapshot.still > _patience(run, snapshot) and snapshot.attempt > hung:
            hung, where = snapshot.attempt, ray.get(board.hanging.remote())
            note(f"nothing got on for {snapshot.still:.0f} s: {where}; starting again")
            ray.get(board.order.remote(Order.ABORT))
            _close(run, snapshot, f"nothing got on for {snapshot.still:.0f} s: {where}")
        if reason := nodes.reason_to_move(snapshot):
            note(f"{reason}: the workers save and go on elsewhere")
            ray.get(board.order.remote(Order.MOVE))


def _patience(run: Run, snapshot: Snapshot) -> float:
    """Longest that nothing may get on, in seconds: reading or writing all of the state is one phase, however long."""
    limit = run.cluster.hang_timeout_s
    return max(limit, run.checkpoint.timeout_s) + _LONGER_S if snapshot.storing else limit


class _Nodes:
    """Looks at the cluster's nodes every few seconds, for reasons to save and go on elsewhere."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._looked = time.monotonic()
        self._open_since: float | None = None
        self._told = 0

    def reason_to_move(self, snapshot: Snapshot) -> str:
        """Why the group should move; empty where it need not. Said once for each attempt."""
        now = time.monotonic()
        running = snapshot.attempt and snapshot.status.step and snapshot.attempt != self._told and not snapshot.moved
        if not running or now - self._looked < _LOOK_S:
            return ""
        self._looked = now
        reason = self._leaving(snapshot) or self._room(snapshot, now)
        if reason:
            self._told, self._open_since = snapshot.attempt, None
        return reason

    def _leaving(self, snapshot: Snapshot) -> str:
        going = sorted(snapshot.nodes & set(draining_nodes()))
        return f"node {', '.join(node[:8] for node in going)} is about to be taken away" if going else ""

    def _room(self, snapshot: Snapshot, now: float) -> str:
        cluster = self._run.cluster
        if not cluster.min_workers or snapshot.workers >= cluster.workers:
            return ""
        free = free_places(cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker)
        if not free:
            self._open_since = None
            return ""
        self._open_since = self._open_since or now
        if now - self._open_since < max(cluster.grow_after_s, _RAY_SEES_S):
            return ""
        return f"there is room for {min(cluster.workers, snapshot.workers + free)} workers, not {snapshot.workers}"


def _too_late(run: Run, snapshot: Snapshot) -> ClusterError:
    import ray

    there = {name: value for name, value in ray.cluster_resources().items() if name in ("CPU", "GPU")}
    cluster = run.cluster
    return ClusterError(
        f"no workers for {cluster.startup_timeout_s} s" + (" after a failure" if snapshot.attempt else ""),
        found=", ".join(f"{value:g} {name}" for name, value in sorted(there.items())) + " in the cluster",
        expected=f"{cluster.workers} x ({cluster.cpus_per_worker} CPU, {cluster.gpus_per_worker} GPU) free",
        mend="add nodes, ask for fewer cluster.workers, or wait longer with cluster.startup_timeout_s",
    )


def _cluster_error(error: BaseException, snapshot: Snapshot, log: str) -> EcellmError:
    """The workers' failure in our words: a storage error they named, else the rank and cause that came first."""
    if snapshot.errors:
        return snapshot.errors[min(snapshot.errors)]
    causes = {rank: _line(cause) for rank, cause in getattr(error, "worker_failures", {}).items()}
    # When one worker dies the others lose their connection to it: that is not the cause.
    lost = ("closed by peer", "Connection reset", "timed out", "unhealthy")
    first = {rank: text for rank, text in causes.items() if not any(word in text for word in lost)} or causes
    found = "; ".join(f"worker {rank}: {text}" for rank, text in sorted(first.items())) or _line(error)
    return ClusterError(
        f"training failed in attempt {snapshot.attempt} at step {snapshot.status.step}", found=found,
        expected="workers that live to the end",
        mend=f"run the same command to go on from the newest checkpoint ({log} has the tracebacks); "
        "raise cluster.max_failures to replace workers, lower train.micro_batch_size if memory ran out",
    )  # fmt: skip


def _keep_log(run: Run, snapshot: Snapshot, error: BaseException) -> str:
    """The workers' tracebacks into OUT, since a private Ray takes its logs with it. Returns where they are."""
    _close(run, snapshot, _line(error))
    with contextlib.suppress(EcellmError):  # the failure itself is what people must see
        return attempts.keep_log(open_storage(run.out, run.storage), snapshot.attempt, f"{masked(str(error))}\n")
    return "no log"


def _close(run: Run, snapshot: Snapshot, reason: str) -> None:
    """Say how an attempt ended, where one had begun; not being able to say so is no trouble of the run's."""
    with contextlib.suppress(EcellmError):
        if snapshot.attempt:
            attempts.close(open_storage(run.out, run.storage), snapshot.attempt, reason, step=snapshot.status.step)


def _line(error: BaseException) -> str:
    """The last telling line of an error, which Ray wraps in a page of traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    died = [line for line in lines if "died" in line.lower() or "killed" in line.lower() or "SIGKILL" in line]
    text = (died or lines or [type(error).__name__])[-1]
    return text.partition(" Some common causes")[0][:300]
