"""What the driver shows while workers train, and the board through which it hears of them. No Ray and no torch here.

The one decision: workers tell the board, and the board alone. Its heartbeat answers whether to stop, so one call every
second or two carries both directions and a training step waits for nobody.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from rich.progress import Progress, TaskID

from ecellm.console import note
from ecellm.errors import CheckpointError, ClusterError, EcellmError, StorageError


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far rank 0 is."""

    step: int = 0
    total: int = 0
    epoch: float = 0.0
    loss: float | None = None
    val_loss: float | None = None
    tokens_per_second: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """The board as the driver reads it. Times are seconds since the last sign of life."""

    attempt: int
    silent: float
    status: Status
    notes: tuple[str, ...]
    errors: dict[int, EcellmError] = field(default_factory=dict)
    resumed: tuple[int, ...] = ()


class Board:
    """Shared between driver and workers; with Ray it is an actor."""

    def __init__(self) -> None:
        self._attempt, self._stop = 0, False
        self._status, self._notes = Status(), list[str]()
        self._errors: dict[int, EcellmError] = {}
        self._resumed: list[int] = []
        self._heard = time.monotonic()

    def begin(self) -> int:
        """A group of workers starts: the number of this attempt, from 1."""
        self._attempt += 1
        self._errors = {rank: error for rank, error in self._errors.items() if is_final(error)}
        self._heard = time.monotonic()
        return self._attempt

    def beat(self) -> bool:
        """A worker lives. Whether to save and stop."""
        self._heard = time.monotonic()
        return self._stop

    def update(self, status: Status) -> None:
        """Take rank 0's progress."""
        self._status, self._heard = status, time.monotonic()

    def say(self, text: str) -> None:
        """A line for people."""
        self._notes.append(text)

    def fail(self, rank: int, error: EcellmError) -> None:
        """A worker's own error, before it travels through anybody who might wrap it."""
        self._errors.setdefault(rank, error)

    def failure(self) -> EcellmError | None:
        """An error that trying again does not mend."""
        return next((error for _, error in sorted(self._errors.items()) if is_final(error)), None)

    def resume(self, step: int) -> None:
        """This attempt goes on after a step."""
        self._resumed.append(step)

    def stop(self) -> None:
        """Ask the workers to save and stop."""
        self._stop = True

    def snapshot(self) -> Snapshot:
        """What the driver shows; the notes are handed over once."""
        notes, self._notes = tuple(self._notes), []
        return Snapshot(
            self._attempt, time.monotonic() - self._heard, self._status, notes, dict(self._errors),
            tuple(self._resumed),
        )  # fmt: skip


def is_final(error: EcellmError) -> bool:
    """Whether the same attempt would only fail again. Storage and the cluster may come back."""
    return isinstance(error, CheckpointError) or not isinstance(error, StorageError | ClusterError)


_LINE_S = 20.0
"""Seconds between lines where there is no screen to draw on."""


class Display:
    """One live line: steps, loss, tokens a second, time left. In a log: a line every now and then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._shown = Status()
        self._told: tuple[float, int] | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Draw what changed."""
        for text in snapshot.notes:
            note(text)
        status = snapshot.status
        if not status.total or status == self._shown:
            return
        if self._task is None or status.step < self._shown.step:
            # Time left is counted from where this attempt began.
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task("training", total=status.total, completed=status.step, extra="")
        self._progress.update(self._task, completed=status.step, extra=describe(status))
        self._shown = replace(status)
        if not self._progress.console.is_terminal:
            self._tell(status)

    def _tell(self, status: Status) -> None:
        now = time.monotonic()
        if self._told is None or status.step < self._told[1]:
            self._told = (now, status.step)
        elif now - self._told[0] >= _LINE_S and status.step > self._told[1]:
            pace = (now - self._told[0]) / (status.step - self._told[1])
            left = pace * (status.total - status.step) / 60
            note(f"step {status.step:,}/{status.total:,}  {describe(status)}  {left:.0f} min left")
            self._told = (now, status.step)


def describe(status: Status) -> str:
    """`epoch 1.2  loss 0.873  val 0.91  1,234 tokens/s`."""
    parts = [f"epoch {status.epoch:.1f}"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.3f}")
    if status.val_loss is not None:
        parts.append(f"val {status.val_loss:.3f}")
    return "  ".join([*parts, f"{status.tokens_per_second:,.0f} tokens/s"])
