"""The data card: rows/card.json for programs, rows/README.md for people and for the Hugging Face hub.

It says what is in the rows, where it came from under which licence, which faults were mended and why, what each step
left out, and what the splits share.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ecellm.config.mends import reasons
from ecellm.config.schema import Run
from ecellm.ecinstruct.choose import QUALITY
from ecellm.ecinstruct.leaks import RECUR, broken
from ecellm.ecinstruct.recipe import Recipe
from ecellm.records import KINDS, SPLITS
from ecellm.tasks.registry import TASKS

NOTES = (
    "AVE answers are lower-cased, inputs are not, as in the paper.",
    "PM, MPC, PSI and QPR have no out-of-domain test; AVE out-of-domain means held-out attributes.",
    "Language is told by fastText's small model, near-duplicates by MinHash of three-word shingles.",
    "Reviewer names never leave the readers; user ids are used to keep users apart and are in no row.",
)


def whole_task(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A task's part of the card, its steps in the order in which they are taken."""
    dropped = facts["dropped"]
    steps = [step for step in dropped if step not in QUALITY] + [step for step in QUALITY if step in dropped]
    return {**facts, "dropped": {step: dropped[step] for step in steps}}


def card(
    run: Run, tasks: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], recipe: Recipe, *, made_up: bool,
    fingerprint: str,
) -> bytes:  # fmt: skip
    """card.json. `made_up` marks rows that no shop ever had."""
    why = reasons()
    told = {task: whole_task(facts) for task, facts in tasks.items()}
    leaks = {task: found for task, facts in told.items() if (found := broken(task, facts["leaks"]))}
    said = {
        "made_up": made_up,
        "seed": run.seed,
        "recipe": run.build.recipe,
        "negatives": "hard" if recipe.hard else "random",
        "near_duplicates": recipe.near,
        "mends": {name: {"on": on, "why": why[name]} for name, on in recipe.mends.named().items()},
        "fingerprint": fingerprint,
        "samples": sum(sum(facts["samples"].values()) for facts in told.values()),
        "raw_records": sum(tally["lines"] for tally in _once(told).values()),
        "categories_in_and_out": _both_ways(run),
        "leaks_where_none_are_promised": leaks,
        "notes": list(NOTES),
        "sources": list(sources),
        "tasks": told,
    }
    return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def _once(tasks: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Every raw file's counts, once, whichever tasks it serves."""
    return {label: tally for facts in tasks.values() for label, tally in facts["sources"].items()}


def _both_ways(run: Run) -> list[str]:
    """Categories that are out of domain for one task and train another (P23); reported, mended by `clean_ood`."""
    entries = run.sources.files
    if run.sources.made_up is not None:
        from ecellm.sources.marketplace.write import source_files

        entries = source_files()
    outside = {entry.category for entry in entries if entry.domain == "OOD" and entry.category}
    inside = {entry.category for entry in entries if entry.domain == "IND"}
    return [] if run.build.mends.clean_ood else sorted(outside & inside)


def data_card(card_json: bytes) -> bytes:
    """README.md in the form of the Hugging Face hub: a YAML header, then text and tables."""
    import jinja2

    said = json.loads(card_json)
    names = {task: TASKS[task].name for task in said["tasks"]}
    settings = sorted({(split, setting) for facts in said["tasks"].values()
                       for split, of in facts["rows"].items() for setting in of},
                      key=lambda pair: (SPLITS.index(pair[0]), pair[1][:3], KINDS.index(pair[1][4:])))  # fmt: skip
    text = files("ecellm.ecinstruct").joinpath("card.md.j2").read_text("utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                     keep_trailing_newline=True)  # fmt: skip
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    total = said["samples"]
    size = next((name for limit, name in _SIZES if total < limit), "n>1M")
    page = environment.from_string(text).render(
        card=said,
        names=names,
        settings=settings,
        size=size,
        recur=[task for task in names if task in RECUR],
        files=lambda card: dict(sorted(_once(card["tasks"]).items())),
    )
    return page.encode()


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
