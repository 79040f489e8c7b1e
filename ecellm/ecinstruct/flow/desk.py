"""The desk of one piece of work: what a builder's function reads from, and where it puts what it makes and counts.

A function emits rows to tables, by a key that decides their part; offers samples to a pool of a task; drops what it
leaves out, with the reason; counts the texts that it changed; and tells facts that add up over all pieces. The next
stage's desk shows it all that, summed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any

import pyarrow as pa

from ecellm.ecinstruct.flow.bundle import Bundle, Row, Writer, to_rows, whole
from ecellm.ecinstruct.flow.family import BETWEEN, CANDIDATES, ORDER, Family
from ecellm.ecinstruct.flow.scratch import Scratch
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.samples import Sample

FLUSH_ROWS = 40_000
"""Rows that wait in memory before they become segments."""
SEGMENT = 512
"""Candidates in one segment: what a reader of the drawing order holds of each bundle."""
Counts = dict[str, int]
_IN_ORDER = itemgetter(*range(7))
"""Key of a candidate's row in the drawing order: all that is never None."""


class Desk:
    """The desk of one piece of work of one family."""

    def __init__(self, family: Family, recipes: dict[str, Recipe], scratch: Scratch, parts: int) -> None:
        self.family, self.recipes, self.scratch, self.parts = family, recipes, scratch, parts
        self.recipe = recipes[family.tasks[0]]
        self.seed = self.recipe.seed
        self.drops: dict[str, dict[str, Counts]] = {task: {} for task in family.tasks}
        self.told: dict[str, Counts] = {}
        self.memo: dict[str, Any] = {}
        """What a family's functions keep between two calls at this desk."""
        self._rows: dict[tuple[str, int], list[Row]] = defaultdict(list)
        self._waiting = 0
        self._offers: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self._order: dict[str, list[Row]] = defaultdict(list)
        self._shared: dict[str, pa.Table] = {}
        self._writer: Writer | None = None

    # what a function makes

    def emit(self, table: str, key: int, *row: Any) -> None:
        """A row of a table; rows of equal keys come to one part."""
        self._rows[table, key % self.parts].append(row)
        self._waiting += 1
        if self._waiting >= FLUSH_ROWS:
            self.flush()

    def offer(self, pool: str, sample: Sample, key: int, klass: str = "") -> None:
        """A sample that may be drawn for a pool, at `key` in the drawing order."""
        self._offers[sample.task, pool].append((
            key, sample.input, sample.output, klass, sample.source, sample.slot, BETWEEN.join(sample.entities),
            sample.options, sample.option_labels,
        ))  # fmt: skip
        counts = self.told.setdefault(f"pool/{sample.task}", {})
        name = f"{pool}\x1f{klass}"
        counts[name] = counts.get(name, 0) + 1

    def stand(self, task: str, pool: str, group: str, place: int, note: str = "") -> None:
        """Where a sample stands in the authors' order (`paper`): its candidate's key is the same place."""
        self._order[task].append((pool, group, place, note))

    def drop(self, step: str, split: str = "", n: int = 1, task: str = "") -> None:
        """Count what is left out by a step; of one task, or of all of the family."""
        if n:
            for name in (task,) if task else self.family.tasks:
                counts = self.drops[name].setdefault(step, {})
                counts[split] = counts.get(split, 0) + n

    def change(self, step: str, n: int = 1, task: str = "") -> None:
        """Count texts that a step changed and kept; of one task, or of all of the family."""
        if n:
            for name in (task,) if task else self.family.tasks:
                self.tell(f"changed/{name}", step, n)

    def changes(self, task: str) -> Counts:
        """What the steps of all stages changed in texts of a task, the most frequent first."""
        found: Counts = {}
        for stage in ("scatter", *(stage.name for stage in self.family.stages(self.recipe))):
            for step, n in self.facts(f"changed/{task}", stage).items():
                found[step] = found.get(step, 0) + n
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    def tell(self, fact: str, key: str, n: int = 1) -> None:
        """Add to a fact that is summed over all pieces."""
        counts = self.told.setdefault(fact, {})
        counts[key] = counts.get(key, 0) + n

    def share(self, name: str, table: pa.Table) -> None:
        """A table that every piece of later stages can look into."""
        self._shared[name] = table

    # what it reads

    def facts(self, fact: str, stage: str = "scatter") -> Counts:
        """A fact of an earlier stage, summed."""
        found = _index(self.scratch, self.family.name, stage)["told"].get(fact, {})
        return dict(found)

    def table(self, table: str, part: int | None = None, stage: str = "scatter") -> pa.Table:
        """A table, or one part of it, as an earlier stage emitted it, in the order of its pieces."""
        name = f"{self.family.name}.{table}"
        return whole(self.bundles(stage), name, self.family.tables[table], part)

    def rows(self, table: str, part: int | None = None, stage: str = "scatter") -> Iterator[Row]:
        """The same as tuples."""
        yield from to_rows(self.table(table, part, stage))

    def segments(self, table: str, stage: str = "scatter") -> Iterator[pa.Table]:
        """A whole table piece by piece."""
        for bundle in self.bundles(stage):
            yield from bundle.segments(f"{self.family.name}.{table}")

    def order(self, task: str, stage: str) -> pa.Table:
        """Where the samples of a task stand in the authors' order."""
        return whole(self.bundles(stage), f"{self.family.name}.order.{task}", ORDER)

    def shared(self, name: str, stage: str) -> pa.Table:
        """A table that an earlier `once` stage shared."""
        return _shared(self.scratch, f"{self.family.name}/{stage}/00000", name)

    def bundles(self, stage: str) -> list[Bundle]:
        """What the pieces of an earlier stage wrote, in order."""
        return _bundles(self.scratch, self.family.name, stage)

    # how it ends

    def open(self, writer: Writer) -> None:
        """Write what does not have to wait to this bundle from now on."""
        self._writer = writer

    def flush(self) -> None:
        """Waiting rows to segments."""
        if self._writer is None:
            raise RuntimeError("the desk has no bundle to write to")
        for (table, part), rows in self._rows.items():
            self._writer.rows(f"{self.family.name}.{table}", part, rows, self.family.tables[table])
        self._rows.clear()
        self._waiting = 0

    def close(self) -> dict[str, Any]:
        """Write all that waits; the facts of this piece."""
        self.flush()
        writer = self._writer
        assert writer is not None
        for (task, pool), rows in sorted(self._offers.items()):
            rows.sort(key=_IN_ORDER)
            for start in range(0, len(rows), SEGMENT):
                writer.rows(stream_name(self.family.name, task, pool), 0, rows[start : start + SEGMENT], CANDIDATES)
        for task, stands in sorted(self._order.items()):
            writer.rows(f"{self.family.name}.order.{task}", 0, stands, ORDER)
        for name, table in sorted(self._shared.items()):
            writer.table(f"shared.{name}", 0, table)
        self._offers.clear()
        self._order.clear()
        return {"drops": self.drops, "told": self.told}


def stream_name(family: str, task: str, pool: str) -> str:
    """The table of a task's candidates for a pool."""
    return f"{family}.stream.{task}.{pool}"


def index_name(family: str, stage: str) -> str:
    """The object that lists a finished stage's bundles and sums up its facts."""
    return f"{family}/{stage}/index.json"


@lru_cache(maxsize=64)
def _index(scratch: Scratch, family: str, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(scratch.read(index_name(family, stage)))
    return found


@lru_cache(maxsize=64)
def _bundles(scratch: Scratch, family: str, stage: str) -> list[Bundle]:
    return [Bundle(scratch, name) for name in _index(scratch, family, stage)["bundles"]]


@lru_cache(maxsize=16)
def _shared(scratch: Scratch, bundle: str, name: str) -> pa.Table:
    return pa.concat_tables(Bundle(scratch, bundle).segments(f"shared.{name}"))
