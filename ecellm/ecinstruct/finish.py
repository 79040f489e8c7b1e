"""The last piece of work of a task: draw its samples, write its rows, say what they share and what was left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ecellm.config.schema import TASK_IDS
from ecellm.ecinstruct.choose import Chosen, choose
from ecellm.ecinstruct.families import FAMILIES, FAMILY_OF
from ecellm.ecinstruct.flow.job import Job
from ecellm.ecinstruct.flow.perform import desk_of
from ecellm.ecinstruct.leaks import shared
from ecellm.ecinstruct.quality import plain
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.samples import POOLS
from ecellm.ecinstruct.settings import to_rows
from ecellm.records import IND, KINDS, OOD, SPLITS
from ecellm.rows import write_split
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage

FOLDER = "rows"
CLASSES = 20
"""A task with more distinct answers has no label distribution on its card."""
OVERLAP = 0.3
"""AG answers with a smaller share of their words in the document or question are counted as unsupported (P21)."""


def part_name(task: str) -> str:
    """A task's Parquet files are numbered by its place, so no task overwrites another's."""
    return f"part-{list(TASK_IDS).index(task):05d}"  # type: ignore[arg-type]


def finish_task(job: Job, task: str) -> dict[str, Any]:
    """Write the rows of a task. Returns its part of the card."""
    desk = desk_of(job, FAMILIES[FAMILY_OF[task]])
    chosen = choose(desk, task)
    recipe = job.recipes[task]
    counts = {pool: len(chosen.pools[pool]) for pool in POOLS}
    rows = _write(open_storage(job.out, job.storage), task, chosen, recipe) if counts["train"] else {}
    last = desk.family.last(desk.recipe)
    offered = desk.facts(f"pools/{task}", last) or desk.facts(f"pool/{task}", desk.family.drawn_from(desk.recipe, task))
    facts: dict[str, Any] = {
        "samples": {pool: counts[pool] for pool in ("train", "val", "test", "ood")},
        "fewer_than_asked": {pool: f"{n} of {recipe.size(pool)} asked for" for pool, n in counts.items()
                             if n < recipe.size(pool)},
        "candidates": sum(offered.values()),
        "rows": rows,
        "labels": {pool: found for pool in POOLS if (found := _labels(chosen, pool))},
        "leaks": shared(task, chosen),
        "changed": desk.changes(task),
        "drops": desk.drops[task],
    }  # fmt: skip
    if task == "AG":
        facts["unsupported_answers"] = {pool: n for pool in POOLS if (n := _unsupported(chosen, pool))}
    return facts


def _write(storage: Storage, task: str, chosen: Chosen, recipe: Recipe) -> dict[str, dict[str, int]]:
    """Rows of every split; split -> setting -> how many."""
    pools = {pool: [one.sample(task) for one in found] for pool, found in chosen.pools.items()}
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        write_split(storage, FOLDER, split, to_rows(task, split, pools, recipe), part_name(task))
        for pool, domain in ((split, IND), *((("ood", OOD),) if split == "test" else ())):
            for kind in KINDS if split == "test" else KINDS[:2]:
                if pools[pool] and not (kind == KINDS[3] and not pools["train"]):
                    counts.setdefault(split, {})[f"{domain}_{kind}"] = len(pools[pool])
    return {split: dict(sorted(settings.items())) for split, settings in sorted(counts.items())}


def _labels(chosen: Chosen, pool: str) -> dict[str, int]:
    found = Counter(one.output for one in chosen.pools[pool])
    return dict(sorted(found.items())) if len(found) <= CLASSES else {}


def _unsupported(chosen: Chosen, pool: str) -> int:
    """Answers most of whose longer words stand neither in the document nor in the question: kept, and flagged."""
    count = 0
    for one in chosen.pools[pool]:
        words = {word for word in one.output.lower().split() if len(word) > 3}
        there = set(plain(one.input).lower().replace(".", " ").replace(",", " ").split())
        count += bool(words) and sum(word.strip(".,!?") in there for word in words) < OVERLAP * len(words)
    return count
