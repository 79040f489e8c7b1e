"""`ecellm train`: token shards to checkpoints and an exported model. Starts the workers, watches them, exports.

Training itself is `loop` and `worker`; groups of workers are `group`'s. The one decision: a signal sets an event and
does nothing else, so that whoever trains saves at the end of a step.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from ecellm import stage
from ecellm.checkpoint.adapter import export_adapter
from ecellm.checkpoint.export import export
from ecellm.checkpoint.layout import step_folder
from ecellm.checkpoint.restore import steps
from ecellm.config.schema import Run
from ecellm.console import note, progress
from ecellm.console import stage as announce
from ecellm.data.shards import split_facts
from ecellm.errors import CheckpointError, ConfigError, EcellmError
from ecellm.model.base import base_folder, base_kind
from ecellm.provenance import write_run_json
from ecellm.records import World
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.train import attempts
from ecellm.train.board import Order, Snapshot, Status
from ecellm.train.group import train_in_groups
from ecellm.train.progress import Display

MODEL = "model"
ADAPTER = "adapter"
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
    with _stop_signals() as stop:
        if run.train.engine == "plain":
            facts = _in_process(run, storage, stop)
        else:
            facts = train_in_groups(run, stop)
    facts["steps"] = _export(run, storage, wanted, facts)
    write_run_json(storage, run, train={**facts, "wall_seconds": round(time.monotonic() - begun, 1)})
    return {**facts, "skipped": False}


def _export(run: Run, storage: Storage, wanted: str, facts: dict[str, Any]) -> int:
    whole, _ = steps(storage)
    if not whole:
        raise CheckpointError(f"{run.out} holds no checkpoint after training", mend="look at the log of the workers")
    base = base_folder(run, storage) if run.model.lora else ""
    checkpoint = join(run.out, step_folder(whole[-1]))
    stage.clear(storage, MODEL)
    if run.model.lora:
        stage.clear(storage, ADAPTER)
        named = run.model.base if base_kind(run.model.base) in ("hub", "s3") else base
        export_adapter(checkpoint, join(run.out, ADAPTER), run.storage, named)
    files = export(checkpoint, join(run.out, MODEL), run.storage, base)
    stage.publish(storage, MODEL, wanted, **{**facts, "steps": whole[-1], "files": files})
    return whole[-1]


class _OwnHooks:
    """Hooks of the plain engine: this process is the worker."""

    def __init__(self, display: Display, stop: threading.Event, storage: Storage, attempt: int) -> None:
        self.attempt, self.step = attempt, 0
        self._display, self._stop, self._storage = display, stop, storage
        self.resumed: list[int] = []

    def order(self) -> Order:
        return Order.STOP if self._stop.is_set() else Order.GO

    def at(self, step: int, phase: str) -> None:
        self.step = step  # for the attempt's end; nobody looks for a hang, which people see

    def update(self, status: Status) -> None:
        self._display.show(Snapshot(attempt=self.attempt, status=status))

    def say(self, text: str) -> None:
        note(text)

    def begin(self, step: int) -> None:
        with contextlib.suppress(EcellmError):  # a run does not end for the sake of a note about it
            attempts.went_on(self._storage, self.attempt, step)
        if step:
            self.resumed.append(step)

    def after_step(self, step: int) -> None:
        """Nothing: only a worker of Ray rehearses its end."""


def _in_process(run: Run, storage: Storage, stop: threading.Event) -> dict[str, Any]:
    from ecellm.train.worker import run_rank

    if run.cluster.workers != 1:
        raise ConfigError("train.engine: plain is one process", found=f"{run.cluster.workers} workers", mend="zero3")
    attempt = attempts.begin(storage, workers=1, engine="plain")
    with progress() as shown:
        hooks = _OwnHooks(Display(shown), stop, storage, attempt)
        try:
            outcome = run_rank(run, World(rank=0, size=1), hooks)
        except Exception as error:
            attempts.failed(storage, attempt, error, step=hooks.step)
            raise
    attempts.close(storage, attempt, outcome.what if outcome else "done", step=hooks.step)
    if outcome is not None:
        raise outcome
    return {"attempts": attempt, "workers": 1, "resumed": hooks.resumed}


@contextlib.contextmanager
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
