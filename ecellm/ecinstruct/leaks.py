"""The leak report: for every pair of pools, what they share. Counted on the samples that were chosen, in both
recipes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from ecellm.ecinstruct.choose import Chosen

PAIRS = tuple(combinations(("train", "val", "test", "ood"), 2))
KINDS = {"product": "products", "title": "products", "entry": "products", "text": "products", "user": "users",
         "query": "queries", "question": "questions"}  # fmt: skip
"""Beginning of an entity -> what it is called in the report."""
MAY_SHARE = (("test", "ood"),)
"""Pairs that `sound` promises nothing of: both are tests."""


def shared(chosen: Chosen) -> dict[str, dict[str, int]]:
    """`train-test` and so on -> shared products, users, queries, questions, equal inputs and near-duplicate inputs."""
    pools = chosen.pools
    entities = {pool: _entities(entity for one in found for entity in one.entity_list) for pool, found in pools.items()}
    inputs = {pool: {(one.input, one.options) for one in found} for pool, found in pools.items()}
    report: dict[str, dict[str, int]] = {}
    for a, b in PAIRS:
        if not pools[a] or not pools[b]:
            continue
        kinds = sorted({*entities[a], *entities[b]})
        found = {kind: len(entities[a].get(kind, set()) & entities[b].get(kind, set())) for kind in kinds}
        found["inputs"] = len(inputs[a] & inputs[b])
        small, large = (b, a) if len(pools[b]) <= len(pools[a]) else (a, b)
        found["near_duplicate_inputs"] = chosen.alike[small].like(chosen.alike[large])
        report[f"{a}-{b}"] = found
    return report


def _entities(names: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in names:
        kind = KINDS.get(name.partition(":")[0])
        if kind:
            found.setdefault(kind, set()).add(name)
    return found


def broken(report: dict[str, dict[str, int]]) -> list[str]:
    """Pairs in which `sound` promises zero and something is shared, as `train-test: 3 users`."""
    free = {"-".join(pair) for pair in MAY_SHARE}
    return [f"{pair}: {n} {kind}" for pair, found in report.items() if pair not in free
            for kind, n in found.items() if n]  # fmt: skip
