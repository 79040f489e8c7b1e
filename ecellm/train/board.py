"""What driver and workers know of each other: the board, an actor of the driver's. No Ray and no torch here.

The one decision: workers tell the board, and the board alone. Its answer to their heartbeat is an order, so one call
every second or two carries both directions and a training step waits for nobody. A step and a phase come with every
heartbeat: of a group that hangs, the rank that stands elsewhere than the others is the one to look at.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from ecellm.errors import CheckpointError, ClusterError, EcellmError, StorageError

START, RESUME, CHECKPOINT = "start", "resume", "checkpoint"
LONG = frozenset((START, RESUME, CHECKPOINT))
"""Phases that read or write all of a rank's state: one phase, however long it takes."""


class Order(IntEnum):
    """What a worker should do, the more urgent the higher."""

    GO = 0
    """Train on."""
    MOVE = 1
    """Save, and leave, to go on at once with other workers."""
    STOP = 2
    """Save, and leave."""
    ABORT = 3
    """Leave as you are: the group hangs."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far rank 0 is."""

    step: int = 0
    total: int = 0
    epoch: float = 0.0
    loss: float | None = None
    val_loss: float | None = None
    tokens_per_second: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The board as the driver reads it."""

    attempt: int = 0
    workers: int = 0
    silent: float = 0.0
    """Seconds since the last sign of life of any worker."""
    still: float = 0.0
    """Seconds since any worker was last seen to get on."""
    status: Status = Status()
    notes: tuple[str, ...] = ()
    errors: dict[int, EcellmError] = field(default_factory=dict)
    resumed: tuple[int, ...] = ()
    nodes: frozenset[str] = frozenset()
    """Where the group's workers are."""
    moved: bool = False
    """The group has saved and left, to go on with other workers."""
    storing: bool = False
    """Some rank is in one of the `LONG` phases."""


class Board:
    """Shared between driver and workers; with Ray it is an actor.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempt, self._order, self._stop = 0, Order.GO, False
        self._status, self._notes = Status(), list[str]()
        self._errors: dict[int, EcellmError] = {}
        self._resumed: list[int] = []
        self._nodes: dict[int, str] = {}
        self._heard: dict[int, float] = {}
        self._places: dict[int, tuple[int, str]] = {}
        self._moved = False
        self._last = self._got_on = clock()

    def begin(self, attempt: int, nodes: dict[int, str]) -> None:
        """A group of workers starts; `nodes` says where each rank is."""
        self._attempt, self._nodes, self._moved = attempt, dict(nodes), False
        # A stop is for the run, not for a group: one that hung before it could save leaves it to the next.
        self._order = Order.STOP if self._stop else Order.GO
        self._errors = {rank: error for rank, error in self._errors.items() if is_final(error)}
        self._heard, self._places = {}, {}
        self._last = self._got_on = self._clock()

    def beat(self, rank: int, step: int, phase: str) -> Order:
        """A worker lives, and where it is. What it should do."""
        now = self._clock()
        self._heard[rank] = self._last = now
        if self._places.get(rank) != (step, phase):
            self._places[rank], self._got_on = (step, phase), now
        return self._order

    def update(self, status: Status) -> None:
        """Take rank 0's progress."""
        self._status, self._last, self._got_on = status, self._clock(), self._clock()

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

    def move(self) -> None:
        """The group has saved and leaves."""
        self._moved = True

    def reached(self) -> int:
        """The last step that rank 0 told of."""
        return self._status.step

    def order(self, order: Order) -> None:
        """Give the workers an order; a milder one than is standing changes nothing."""
        self._order = max(self._order, order)
        self._stop = self._stop or order is Order.STOP

    def hanging(self) -> str:
        """Where the ranks stand, those that stand elsewhere than most first; and who is not heard of."""
        places: dict[tuple[int, str], list[int]] = defaultdict(list)
        now = self._clock()
        lost = sorted(set(self._nodes) - {rank for rank, heard in self._heard.items() if now - heard < 30.0})
        for rank, place in self._places.items():
            if rank not in lost:
                places[place].append(rank)
        lines = [f"{_ranks(lost)} not heard of"] if lost else []
        ordered = sorted(places.items(), key=lambda item: (len(item[1]), item[0]))
        lines += [f"{_ranks(sorted(ranks))} in {phase} of step {step}" for (step, phase), ranks in ordered]
        return "; ".join(lines)

    def snapshot(self) -> Snapshot:
        """What the driver shows; the notes are handed over once."""
        notes, self._notes = tuple(self._notes), []
        now = self._clock()
        return Snapshot(
            attempt=self._attempt, workers=len(self._nodes), silent=now - self._last, still=now - self._got_on,
            status=self._status, notes=notes, errors=dict(self._errors), resumed=tuple(self._resumed),
            nodes=frozenset(self._nodes.values()), moved=self._moved,
            storing=any(phase in LONG for _, phase in self._places.values()),
        )  # fmt: skip


def is_final(error: EcellmError) -> bool:
    """Whether the same attempt would only fail again. Storage and the cluster may come back."""
    return isinstance(error, CheckpointError) or not isinstance(error, StorageError | ClusterError)


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"
