"""The authors' draws, shared out: which samples a `paper` pool takes, in which order, by their places in the
sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.samples import POOLS

PLACES = pa.schema([("place", pa.uint64())])


class Stand(NamedTuple):
    """Where a sample stands in the authors' order: category, place in the raw files, what its draw needs to know."""

    group: str
    place: int
    note: str


def stands(desk: Desk, task: str, stage: str) -> dict[str, list[Stand]]:
    """Pool -> its samples' stands, by category and place."""
    table = desk.order(task, stage).sort_by([("pool", "ascending"), ("group", "ascending"), ("place", "ascending")])
    found: dict[str, list[Stand]] = {}
    for pool, *rest in zip(*(column.to_pylist() for column in table.columns), strict=True):
        found.setdefault(pool, []).append(Stand(*rest))
    return found


class Picks:
    """The places that each pool of a task takes, in drawing order; pools that nobody puts are empty."""

    def __init__(self, desk: Desk, task: str) -> None:
        self._desk, self._task = desk, task
        for pool in POOLS:
            self.put(pool, ())

    def put(self, pool: str, places: Sequence[int]) -> None:
        """A pool's places."""
        self._desk.share(f"picks.{self._task}.{pool}", pa.Table.from_pydict({"place": list(places)}, schema=PLACES))

    def leave(self, reason: str, pool: str, n: int) -> None:
        """Count samples that were ready and that no pool may take."""
        self._desk.drop(reason, pool, n, self._task)
        self._desk.tell(f"left/{self._task}", reason, n)
