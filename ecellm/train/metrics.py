"""metrics.jsonl, TensorBoard and trackers: what a run says about itself, step by step. Rank 0; it measures nothing.

The one decision: storage cannot append (S3 cannot), so the file is kept in memory and written whole, seldom enough
that writing takes a twentieth of the time at most. A run that goes on drops the lines of steps that it does again; what
earlier attempts wrote is read at the first write, not before the first batch, and never parsed but for those lines.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from ecellm.config.schema import Run
from ecellm.console import note
from ecellm.errors import StorageError
from ecellm.storage.base import Storage
from ecellm.train.trackers import trackers_of

KEY = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_SECONDS = 10.0


class Metrics:
    """The lines of one attempt, after those that earlier attempts left for steps up to `step`."""

    def __init__(self, run: Run, storage: Storage, step: int, attempt: int, say: Callable[[str], None] = note) -> None:
        self._storage, self._step, self._say = storage, step, say
        self._trackers = trackers_of(run, attempt, say)
        self._earlier: bytes | None = None
        self._lines: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ecellm-tensorboard-")
        self._writer = SummaryWriter(self._folder.name, purge_step=step + 1 if step else None)
        self._name = f"{TENSORBOARD}/events.out.tfevents.{step:010d}.attempt-{attempt:05d}"
        self._next, self._written = time.monotonic() + _SECONDS, -1

    def add(self, line: dict[str, Any]) -> None:
        """One line; numbers that are not finite become null, which JSON has and NaN it has not."""
        clean = {key: _finite(value) for key, value in line.items()}
        self._lines.append(json.dumps(clean))
        step = int(clean["step"])
        scalars = {f"train/{key}": value for key, value in clean.items() if isinstance(value, int | float)}
        scalars.pop("train/step")
        for key, value in scalars.items():
            self._writer.add_scalar(key, value, step)
        for tracker in self._trackers:
            tracker.log(scalars, step)
        if time.monotonic() > self._next:
            self.flush()

    def flush(self) -> None:
        """Put everything into storage; what cannot be written now is told, kept, and written later."""
        try:
            self._flush()
        except StorageError as error:
            self._next = time.monotonic() + _SECONDS
            self._say(f"the metrics could not be written, training goes on: {error.what}")

    def _flush(self) -> None:
        if self._written == len(self._lines):
            return
        began = time.monotonic()
        if self._earlier is None:
            self._earlier = kept_lines(self._storage, self._step)
        self._storage.write(KEY, self._earlier + "".join(f"{line}\n" for line in self._lines).encode())
        self._writer.flush()
        for name in sorted(os.listdir(self._folder.name)):
            self._storage.upload(os.path.join(self._folder.name, name), self._name)
        self._written = len(self._lines)
        self._next = time.monotonic() + max(_SECONDS, 20 * (time.monotonic() - began))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
            else:
                self.flush()  # a trouble of its own must not hide the one there is
        finally:
            self._writer.close()
            self._folder.cleanup()
            for tracker in self._trackers:
                tracker.close()


def kept_lines(storage: Storage, step: int) -> bytes:
    """Lines of earlier attempts that still hold: those of steps up to `step`. A broken last line is left out.

    Steps only grow, so lines are looked at from the end, back to the first that holds.
    """
    try:
        data = storage.read(KEY)
    except FileNotFoundError:
        return b""
    end = len(data)
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if _holds(data[start:end], step):
            break
        end = start
    kept = data[:end]
    return kept + b"\n" if kept and not kept.endswith(b"\n") else kept


def _holds(line: bytes, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value
