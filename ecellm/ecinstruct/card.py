"""The data card, rows/card.json: what is in the rows, where it came from, and what was left out on the way."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ecellm.ecinstruct.samples import POOLS, Recipe, Samples, overlaps
from ecellm.records import Row

CLASSES = 20
"""A task with more distinct answers has no label distribution on its card."""
NOTES = (
    "AVE answers are lower-cased, inputs are not, as in the paper.",
    "PM out-of-domain does not exist; AVE out-of-domain means held-out attributes.",
    "Foreign text is told by its script, not by a language model.",
)


def task_facts(samples: Samples, rows: Sequence[Row], recipe: Recipe, tallies: Mapping[str, object]) -> dict[str, Any]:
    """One task's part of the card."""
    counts = {name: len(samples.pool(name)) for name in POOLS}
    short = {name: f"{n} of {recipe.size(name)} asked for" for name, n in counts.items() if n < recipe.size(name)}
    return {
        "samples": counts,
        "fewer_than_asked": short,
        "rows": count_rows(rows),
        "labels": {name: found for name in POOLS if (found := _labels(samples, name))},
        "dropped": samples.dropped,
        "shared_entities": overlaps(samples),
        "sources": dict(tallies),
    }


def count_rows(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """split -> setting -> rows."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.split][row.setting] += 1
    return {split: dict(sorted(settings.items())) for split, settings in sorted(counts.items())}


def card(
    tasks: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], *, seed: int, made_up: bool, **facts: Any
) -> bytes:
    """card.json. `made_up` marks rows that no shop ever had."""
    said = {
        "made_up": made_up,
        "seed": seed,
        **facts,
        "notes": list(NOTES),
        "sources": list(sources),
        "tasks": dict(tasks),
    }
    return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def _labels(samples: Samples, pool: str) -> dict[str, int]:
    found = Counter(sample.output for sample in samples.pool(pool))
    return dict(sorted(found.items())) if len(found) <= CLASSES else {}
