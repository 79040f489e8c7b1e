"""The shelf of SR: every item text that was bought in a domain, from which the nineteen other candidates are drawn.

A table sorted by category and text, looked into by row, never held as Python texts. Random candidates are rows drawn
evenly; hard ones are of the target's category, drawn as often as they were bought, which no category gives away.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecellm.ecinstruct.draws import rng
from ecellm.ecinstruct.flow.desk import Desk

CANDIDATES = 20
TRIES = 2_000
SHELF = pa.schema([("domain", pa.string()), ("text", pa.string()), ("group", pa.string()), ("n", pa.int64())])


def arrange(desk: Desk) -> None:
    """Sum up and sort the items of each domain; in `paper` the 5-core of each category too."""
    table = pa.concat_tables([SHELF.empty_table(), *desk.segments("shelf", "items")])
    of = table.group_by(["domain", "text"], use_threads=False).aggregate([("group", "min"), ("n", "sum")])
    for domain in ("IND", "OOD"):
        mine = of.filter(pc.equal(of["domain"], domain)).sort_by([("group_min", "ascending"), ("text", "ascending")])
        desk.share(f"shelf.{domain}", mine.select(["text", "group_min", "n_sum"]))
    if desk.recipe.paper:
        from ecellm.ecinstruct.core import find_core

        find_core(desk)


class _Shelf:
    """One domain's items: texts by row, each category's rows, and how often the rows up to one were bought."""

    def __init__(self, table: pa.Table) -> None:
        self.texts = table["text"].combine_chunks()
        self.size = len(self.texts)
        groups = table["group_min"].to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if self.size else np.empty(0, np.int64)
        ends = [*starts[1:].tolist(), self.size]
        self.rows = {str(groups[start]): (int(start), int(end)) for start, end in zip(starts, ends, strict=False)}
        self.bought = np.concatenate([[0], np.cumsum(table["n_sum"].to_numpy())]).tolist()

    def text(self, row: int) -> str:
        return str(self.texts[row].as_py())


def options(desk: Desk, domain: str, group: str, target: str, barred: set[str], salt: str) -> list[str] | None:
    """Twenty items in random order, the target among them and no other of `barred`; None where there are too few."""
    shelf = _of(desk, domain)
    chance = rng(desk.seed, "SR", salt)
    others: list[str] = []
    taken = set(barred)
    spans = [(0, shelf.size)]
    if desk.recipe.hard and group in shelf.rows:
        spans.insert(0, shelf.rows[group])
    for start, end in spans:
        _fill(shelf, chance, start, end, taken, others, weighted=desk.recipe.hard)
    if len(others) < CANDIDATES - 1:
        return None
    listed = [target, *others]
    chance.shuffle(listed)
    return listed


def _fill(
    shelf: _Shelf, chance: Any, start: int, end: int, taken: set[str], others: list[str], *, weighted: bool
) -> None:
    """Add rows of a span until there are enough, or none are left."""
    low, high = (shelf.bought[start], shelf.bought[end]) if weighted else (start, end)
    for _ in range(TRIES if end > start else 0):
        if len(others) == CANDIDATES - 1:
            return
        draw = chance.randrange(low, high)
        text = shelf.text(bisect_right(shelf.bought, draw) - 1 if weighted else draw)
        if text not in taken:
            taken.add(text)
            others.append(text)
    if len(others) < CANDIDATES - 1 and end - start <= TRIES:  # a small span is looked through to its end
        rows = list(range(start, end))
        chance.shuffle(rows)
        for row in rows:
            text = shelf.text(row)
            if text not in taken and len(others) < CANDIDATES - 1:
                taken.add(text)
                others.append(text)


def _of(desk: Desk, domain: str) -> _Shelf:
    name = f"shelf.{domain}"
    if name not in desk.memo:
        desk.memo[name] = _Shelf(desk.shared(name, "shelf"))
    found: _Shelf = desk.memo[name]
    return found
