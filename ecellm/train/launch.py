"""`ecellm train`: token shards to checkpoints and an exported model. Starts the workers, watches them, exports.

Training itself is `loop` and `worker`. The one decision: Ray Train runs in a thread of its own, while this one shows
progress, takes signals and keeps the deadline; Ray Train itself would wait for missing workers for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ecellm import stage
from ecellm.checkpoint.export import export
from ecellm.checkpoint.layout import step_folder
from ecellm.checkpoint.restore import steps
from ecellm.config.schema import Run
from ecellm.console import note, progress
from ecellm.console import stage as announce
from ecellm.data.shards import split_facts
from ecellm.errors import CheckpointError, ClusterError, ConfigError, EcellmError, StorageError
from ecellm.model.base import base_folder, placed
from ecellm.provenance import write_run_json
from ecellm.records import World
from ecellm.session import ray_session
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.train.progress import Board, Display, Snapshot, Status

MODEL = "model"
FAILURE = "train-failure.log"
_POLL_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def train(run: Run) -> dict[str, Any]:
    """Train, or go on from the newest whole checkpoint, and export to OUT/model.

    Returns:
        Facts of the run: steps, attempts, `skipped` where the model was there already.

    Raises:
        DataError: no token shards, or a loss that is no number.
        CheckpointError, StorageError: OUT cannot be used.
        ClusterError: workers failed or did not come.
        Stopped: saved after a signal.
    """
    storage = open_storage(run.out, run.storage)
    data = {split: split_facts(storage, split)["fingerprint"] for split in ("train", "val")}
    wanted = stage.fingerprint("model 1", run.model, run.train, run.seed, data)
    if stage.is_complete(storage, MODEL, wanted):
        note(f"{join(run.out, MODEL)} is complete for these settings")
        return {**(stage.marker(storage, MODEL) or {}), "skipped": True}
    announce("train", f"{run.model.base}, {run.train.engine}, {run.cluster.workers} workers")
    base_folder(run, storage)  # a missing base is told before any worker starts
    write_run_json(storage, run, data_fingerprint=data["train"])
    begun = time.monotonic()
    facts = _in_process(run) if run.train.engine == "plain" else _with_ray(run)
    facts["steps"] = _export(run, storage, wanted, facts)
    write_run_json(storage, run, train={**facts, "wall_seconds": round(time.monotonic() - begun, 1)})
    return {**facts, "skipped": False}


def _export(run: Run, storage: Storage, wanted: str, facts: dict[str, Any]) -> int:
    whole, _ = steps(storage)
    if not whole:
        raise CheckpointError(f"{run.out} holds no checkpoint after training", mend="look at the log of the workers")
    base = base_folder(run, storage) if run.model.lora else ""
    stage.clear(storage, MODEL)
    export(join(run.out, step_folder(whole[-1])), join(run.out, MODEL), run.storage, base)
    stage.publish(storage, MODEL, wanted, **{**facts, "steps": whole[-1]})
    return whole[-1]


class _OwnHooks:
    """Hooks of the plain engine: this process is the worker."""

    attempt = 1

    def __init__(self, display: Display, stop: threading.Event) -> None:
        self._display, self._stop = display, stop
        self.resumed: list[int] = []

    def wants_stop(self) -> bool:
        return self._stop.is_set()

    def update(self, status: Status) -> None:
        self._display.show(Snapshot(1, 0.0, status, ()))

    def say(self, text: str) -> None:
        note(text)

    def begin(self, step: int) -> None:
        if step:
            self.resumed.append(step)

    def after_step(self, step: int) -> None:
        """Nothing: only a worker of Ray rehearses its end."""


def _in_process(run: Run) -> dict[str, Any]:
    from ecellm.train.worker import run_rank

    if run.cluster.workers != 1:
        raise ConfigError("train.engine: plain is one process", found=f"{run.cluster.workers} workers", mend="zero3")
    with _stop_signals() as stop, progress() as shown:
        hooks = _OwnHooks(Display(shown), stop)
        outcome = run_rank(run, World(rank=0, size=1), hooks)
    if outcome is not None:
        raise outcome
    return {"attempts": 1, "workers": 1, "resumed": hooks.resumed}


def _with_ray(run: Run) -> dict[str, Any]:
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    cpus = run.cluster.workers * run.cluster.cpus_per_worker
    with tempfile.TemporaryDirectory(prefix="ecellm-ray-") as private, ray_session(run, cpus=cpus):
        import ray

        board: Any = ray.remote(num_cpus=0)(Board).remote()
        fitting = _Fit(run, board, private)
        with _stop_signals() as stop, progress() as shown:
            snapshot = _watch(run, board, fitting, stop, Display(shown))
        failure = ray.get(board.failure.remote())
        if failure is not None:
            raise failure
        if fitting.error is not None:
            _keep_traceback(run, fitting.error)
            raise _cluster_error(fitting.error, snapshot) from fitting.error
    return {"attempts": snapshot.attempt, "workers": run.cluster.workers, "resumed": list(snapshot.resumed)}


class _Fit:
    """Ray Train in a thread; `error` is what it ended with."""

    def __init__(self, run: Run, board: Any, private: str) -> None:
        self.error: BaseException | None = None
        self._trainer = _trainer(run, board, private)
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


def _trainer(run: Run, board: Any, private: str) -> Any:
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api import config

    from ecellm.train.worker import train_on_ray

    settings: Any = config.RunConfig  # the public stubs still say v1's
    gpus, cpus = run.cluster.gpus_per_worker, run.cluster.cpus_per_worker
    resources: dict[str, float] = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    return TorchTrainer(
        train_on_ray,
        # A worker's working directory is one of Ray's own.
        train_loop_config={"run": run.model_dump_json(), "placed": placed(run).model_dump_json(), "board": board},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=config.ScalingConfig(
            num_workers=run.cluster.workers, use_gpu=bool(gpus), resources_per_worker=resources
        ),
        # Ray resumes by name from its own storage; ours is where checkpoints live, so its name is never used again.
        run_config=settings(
            name=f"{run.name}-{uuid.uuid4().hex[:12]}", storage_path=private,
            failure_config=config.FailureConfig(max_failures=run.cluster.max_failures),
            logging_config=config.LoggingConfig(log_level="CRITICAL"),
        ),
    )  # fmt: skip


def _watch(run: Run, board: Any, fitting: _Fit, stop: threading.Event, display: Display) -> Snapshot:
    """Show progress until Ray Train ends. Raises ClusterError where no worker has been heard of for too long."""
    import ray

    asked = False
    while True:
        over = fitting.ended(_POLL_S)
        if stop.is_set() and not asked:
            asked = True
            note("asked to stop: the workers save first")
            ray.get(board.stop.remote())
        snapshot: Snapshot = ray.get(board.snapshot.remote())
        display.show(snapshot)
        if over:
            return snapshot
        if snapshot.silent > run.cluster.startup_timeout_s:
            raise _too_late(run, snapshot)


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


def _cluster_error(error: BaseException, snapshot: Snapshot) -> EcellmError:
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
        mend=f"run the same command to go on from the newest checkpoint ({FAILURE} in OUT has the tracebacks); "
        "raise cluster.max_failures to replace workers, lower train.micro_batch_size if memory ran out",
    )  # fmt: skip


def _keep_traceback(run: Run, error: BaseException) -> None:
    """The workers' tracebacks into OUT, since a private Ray takes its logs with it."""
    with contextlib.suppress(StorageError):  # the failure itself is what people must see
        open_storage(run.out, run.storage).write(FAILURE, f"{error}\n".encode())


def _line(error: BaseException) -> str:
    """The last telling line of an error, which Ray wraps in a page of traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    died = [line for line in lines if "died" in line.lower() or "killed" in line.lower() or "SIGKILL" in line]
    text = (died or lines or [type(error).__name__])[-1]
    return text.partition(" Some common causes")[0][:300]


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGUSR1 set; only the main thread can take signals."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
