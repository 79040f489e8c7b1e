"""What the driver shows while workers train. It asks nobody; `board` is where it hears of them."""

from __future__ import annotations

import time
from dataclasses import replace

from rich.progress import Progress, TaskID

from ecellm.console import note
from ecellm.train.board import Snapshot, Status

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
