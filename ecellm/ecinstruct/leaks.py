"""The leak report: for every pair of pools, what they share. Counted on the samples that were chosen, in both
recipes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import combinations

from ecellm.ecinstruct.choose import Chosen
from ecellm.ecinstruct.flow.family import Candidate
from ecellm.tasks import options

PAIRS = tuple(combinations(("train", "val", "test", "ood"), 2))
KINDS = {"product": "products", "title": "products", "entry": "products", "text": "products", "user": "users",
         "query": "queries", "question": "questions"}  # fmt: skip
"""Beginning of an entity -> what it is called in the report."""
MAY_SHARE = (("test", "ood"),)
"""Pairs that `sound` promises nothing of: both are tests."""
RECUR = ("SR", "MPC", "PSI", "QPR")
"""Tasks whose splits are by user or query: their products recur, are counted, and nothing is promised of them."""


def shared(task: str, chosen: Chosen) -> dict[str, dict[str, int]]:
    """`train-test` and so on -> shared products, users, queries, questions, equal inputs and near-duplicate inputs."""
    pools = chosen.pools
    entities = {pool: _entities(entity for one in found for entity in one.entity_list) for pool, found in pools.items()}
    if task in RECUR:
        for pool, drawn in pools.items():
            entities[pool]["products"] = {"title": {title for one in drawn for title in _products(task, one)}}
    inputs = {pool: {(one.input, one.options) for one in found} for pool, found in pools.items()}
    report: dict[str, dict[str, int]] = {}
    for a, b in PAIRS:
        if not pools[a] or not pools[b]:
            continue
        kinds = sorted({*entities[a], *entities[b]})
        found = {kind: _most(entities[a].get(kind, {}), entities[b].get(kind, {})) for kind in kinds}
        found["inputs"] = len(inputs[a] & inputs[b])
        small, large = (b, a) if len(pools[b]) <= len(pools[a]) else (a, b)
        found["near_duplicate_inputs"] = chosen.alike[small].like(chosen.alike[large])
        report[f"{a}-{b}"] = found
    return report


Named = dict[str, set[str]]
"""Way of naming -> names: a product has an id in its source, and a text."""


def _entities(names: Iterable[str]) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for name in names:
        way = name.partition(":")[0]
        if way in KINDS:
            found.setdefault(KINDS[way], {}).setdefault(way, set()).add(name)
    return found


def _most(a: Named, b: Named) -> int:
    """How many of a kind two pools share, by the way of naming that finds most."""
    return max((len(a[way] & b[way]) for way in a.keys() & b.keys()), default=0)


def _products(task: str, one: Candidate) -> Iterator[str]:
    """The products that a sample's input and options show, by their text."""
    if task == "SR":
        for texts in (options.literal(one.input), options.literal(one.options or "[]")):
            yield from (str(text).partition(": ")[2] for text in texts if isinstance(texts, list))
        return
    given = json.loads(one.input)
    if task == "QPR":
        yield from (text.partition(": ")[2] for text in given["product list"])
    else:
        yield given["product title" if task == "MPC" else "product"]


def broken(task: str, report: dict[str, dict[str, int]]) -> list[str]:
    """Pairs in which `sound` promises zero and something is shared, as `train-test: 3 users`."""
    free = {"-".join(pair) for pair in MAY_SHARE}
    return [f"{pair}: {n} {kind}" for pair, found in report.items() if pair not in free
            for kind, n in found.items() if n and not (kind == "products" and task in RECUR)]  # fmt: skip
