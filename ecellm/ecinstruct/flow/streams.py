"""Candidates of a task in drawing order, merged from the sorted runs of all bundles, read only as far as they are
drawn.

The second half of an external merge sort: each bundle holds its candidates sorted, in segments of some hundred, and
one segment of each is in memory at a time. So drawing ten thousand of a hundred million reads little more than those.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecellm.ecinstruct.flow.bundle import Bundle, to_rows
from ecellm.ecinstruct.flow.desk import Desk, stream_name
from ecellm.ecinstruct.flow.family import Candidate

Places = npt.NDArray[np.uint64]


def in_order(desk: Desk, task: str, pool: str, stage: str) -> Iterator[Candidate]:
    """Candidates by key; those of one key by content."""
    name = stream_name(desk.family.name, task, pool)
    for row in heapq.merge(*(_run(bundle, name) for bundle in desk.bundles(stage))):
        yield Candidate._make(row)


def _run(bundle: Bundle, name: str) -> Iterator[tuple[object, ...]]:
    for segment in bundle.segments(name):
        yield from to_rows(segment)


def picked(desk: Desk, task: str, pool: str, stage: str, places: Places) -> list[Candidate]:
    """The candidates whose keys are `places`, in that order; those that are not there are passed over."""
    wanted = pa.array(np.sort(places), pa.uint64())
    name = stream_name(desk.family.name, task, pool)
    found: dict[int, Candidate] = {}
    for bundle in desk.bundles(stage):
        for segment in bundle.segments(name):
            for row in to_rows(segment.filter(pc.is_in(segment["key"], wanted))):
                found[row[0]] = Candidate._make(row)
    return [found[place] for place in places.tolist() if place in found]


def available(told: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Pool -> class -> candidates, from the counts that desks tell."""
    found: dict[str, dict[str, int]] = {}
    for name, n in told.items():
        pool, _, klass = name.partition("\x1f")
        of = found.setdefault(pool, {})
        of[klass] = of.get(klass, 0) + n
    return found
