"""Trials of the model while it is trained: each checkpoint that is due is tried on spare workers, as Ray tasks.

Training does not know of it, but for saving a checkpoint at the steps that are due. The lines lie in probes.jsonl and
beside the losses in TensorBoard. The one decision: training never waits for a trial. The newest checkpoint is tried
first, one that retention has taken meanwhile is passed over, and a trial that fails is told of and costs nothing else.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from ecellm.checkpoint.layout import Position
from ecellm.checkpoint.restore import steps
from ecellm.config.schema import Run
from ecellm.console import note
from ecellm.data.order import steps_per_epoch
from ecellm.data.shards import split_facts
from ecellm.errors import EcellmError, StorageError
from ecellm.evaluate.holder import MEMORY_KEPT
from ecellm.evaluate.probe import sample, try_step
from ecellm.model.base import placed
from ecellm.placement import bundle, selectors
from ecellm.stage import fingerprint
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage
from ecellm.train.schedule import total_steps

KEY = "probes.jsonl"
EVENTS = "tensorboard/events.out.tfevents.probes"
LOOK_S = 2.0
"""Seconds between looks at the checkpoints."""


def spare_cpus(run: Run) -> int:
    """CPUs that a private Ray needs for trials, beside those of training."""
    return run.probe.workers * run.cluster.cpus_per_worker if run.probe.rows else 0


class Probes:
    """All trials of one run; call it with Ray connected. Without `probe.rows` it does nothing.

    Raises DataError where there are no rows to try a model on.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._looked = -LOOK_S
        self._told = self._unwritten = False
        self._under_way: dict[Any, int] = {}
        self._failed: set[int] = set()
        if not run.probe.rows:
            return
        from ecellm.train.keeping import identity  # needs torch

        self.storage: Storage = open_storage(run.out, run.storage)
        sample(run, self.storage)
        facts = split_facts(self.storage, "train")
        per_epoch = steps_per_epoch(int(facts["rows"]), run.train.batch_size)
        self.every = run.train.evaluate_every or per_epoch
        self.total = total_steps(per_epoch, run.train.epochs, run.train.max_steps)
        position = Position(
            fingerprint=facts["fingerprint"], seed=run.seed, samples=int(facts["rows"]), batch_size=run.train.batch_size
        )
        tried = (
            run.probe.model_dump(exclude={"workers", "timeout_s"}),
            run.evaluate.tasks,
            run.evaluate.similarity_encoder,
        )
        self._of = fingerprint(identity(run, position), tried)[:16]
        self.lines = {
            step: line for step, line in known_lines(self.storage).items() if line.get("of", self._of) == self._of
        }
        self._run_json = placed(run).model_dump_json()
        self._task = _task_of(run)

    def look(self) -> None:
        """Take in what is done and begin what is due; returns at once. Storage that fails is asked again later."""
        now = time.monotonic()
        if not self.run.probe.rows or now - self._looked < LOOK_S:
            return
        self._looked = now
        try:
            self._collect()
            due = self._due()
        except StorageError as error:
            if not self._told:
                note(f"trials of the model wait, training goes on: {error.what}")
            self._told = True
            return
        self._told = False
        for step in due:
            if len(self._under_way) == self.run.probe.workers:
                return
            self._under_way[self._task.remote(self._run_json, step)] = step

    def finish(self, stop: threading.Event) -> None:
        """Try what is due and still there, unless somebody asks to stop: the next command goes on with it.

        A trial that does not end within `probe.timeout_s`, perhaps for want of a node, is given up.

        Raises StorageError where scores cannot be written even now.
        """
        if not self.run.probe.rows:
            return
        import ray

        tried, since = -1, time.monotonic()
        while not stop.is_set():
            self._looked = -LOOK_S
            self.look()
            if not self._under_way:
                break
            if tried != (tried := len(self.lines) + len(self._failed)):
                since = time.monotonic()
            if time.monotonic() - since > self.run.probe.timeout_s:
                steps_left = ", ".join(map(str, sorted(self._under_way.values())))
                note(f"trials of steps {steps_left} did not end for {self.run.probe.timeout_s} s: given up")
                break
            ray.wait(list(self._under_way), timeout=1.0)
        for reference in self._under_way:
            ray.cancel(reference, force=True)
        if self._unwritten:
            self._write()

    def _due(self) -> list[int]:
        """Steps whose checkpoints are whole, due and not tried, the newest first."""
        done = {*self.lines, *self._under_way.values(), *self._failed}
        whole, _ = steps(self.storage)
        return [step for step in reversed(whole) if step not in done and (step % self.every == 0 or step == self.total)]

    def _collect(self) -> None:
        import ray

        under_way = list(self._under_way)
        ready, _ = ray.wait(under_way, num_returns=len(under_way), timeout=0) if under_way else ([], [])
        for reference in ready:
            step = self._under_way.pop(reference)
            try:
                scores = ray.get(reference)
            except ray.exceptions.RayError as fault:
                self._passed_over(step, fault)
                continue
            self.lines[step] = {"step": step, "decoding": self.run.probe.decoding, "scores": scores, "of": self._of}
            self._unwritten = True
            note(f"step {step} on {_said(scores)}")
        if self._unwritten:
            self._write()

    def _write(self) -> None:
        text = "".join(f"{json.dumps(self.lines[one])}\n" for one in sorted(self.lines))
        self.storage.write(KEY, text.encode())
        _show(self.storage, self.lines)
        self._unwritten = False

    def _passed_over(self, step: int, fault: Exception) -> None:
        self._failed.add(step)
        if step not in steps(self.storage)[0]:
            return  # its checkpoint went while it was read: training is faster than its trials
        cause = getattr(fault, "cause", None)
        said = cause.what if isinstance(cause, EcellmError) else str(fault).strip().rpartition("\n")[2][:200]
        note(f"step {step} could not be tried, training goes on: {said}")


def known_lines(storage: Storage) -> dict[int, dict[str, Any]]:
    """The lines of earlier commands by step; a file that cannot be read counts as none."""
    try:
        lines = [json.loads(line) for line in storage.read(KEY).decode().splitlines()]
        return {int(line["step"]): line for line in lines}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _task_of(run: Run) -> Any:
    import ray

    need, selector = bundle(run), selectors(run, "evaluate")[0]
    words: dict[str, Any] = {"num_cpus": need["CPU"], "num_gpus": need.get("GPU", 0)}
    words |= {"max_retries": run.cluster.max_failures, "runtime_env": {"env_vars": MEMORY_KEPT}}
    words |= {"label_selector": selector} if selector else {}
    remote: Any = ray.remote(**words)
    return remote(try_step)


def _said(scores: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{name} {one['value']:.3f}" for name, one in scores.items() if one.get("value") is not None)


def _show(storage: Storage, lines: Mapping[int, Mapping[str, Any]]) -> None:
    """All lines as one event file, which TensorBoard shows beside those of training."""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="ecellm-tensorboard-") as folder:
        with SummaryWriter(folder) as writer:
            for step in sorted(lines):
                for name, one in lines[step]["scores"].items():
                    if one.get("value") is not None:
                        writer.add_scalar(f"probe/{name}", one["value"], step)
        [name] = os.listdir(folder)
        storage.upload(os.path.join(folder, name), EVENTS)
