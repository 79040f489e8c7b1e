"""One piece of work, as any worker does it: a piece of a raw file scattered, one stage of a family for one part.

Each ends in one bundle. A piece whose bundle is there is not done again: so a build that was killed goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ecellm.ecinstruct.flow.bundle import Bundle, Writer
from ecellm.ecinstruct.flow.desk import Desk, index_name
from ecellm.ecinstruct.flow.family import At, Family
from ecellm.ecinstruct.flow.job import Feed, Job, Use
from ecellm.ecinstruct.flow.scratch import Scratch
from ecellm.ecinstruct.recipe import Recipe
from ecellm.sources.lines import Place
from ecellm.sources.read import read_piece
from ecellm.sources.records import Question, SourceRecord
from ecellm.sources.tally import Tally

Facts = dict[str, Any]


def desk_of(job: Job, family: Family) -> Desk:
    """An empty desk."""
    recipes = {task: job.recipes[task] for task in family.tasks}
    return Desk(family, recipes, Scratch(job.scratch, job.storage), job.parts)


def bundle_of_piece(feed: Feed, number: int) -> str:
    """The object of a piece of a raw file."""
    return f"scatter/{feed.number:05d}/{number:06d}"


def bundle_of_stage(family: Family, stage: int, recipe: Recipe, part: int) -> str:
    """The object of one part of a stage, or (part -1) of a stage that is done at once."""
    return f"{family.name}/{family.stages(recipe)[stage].name}/{max(part, 0):05d}"


def scatter_piece(job: Job, families: Mapping[str, Family], feed: Feed, number: int, place: Place) -> Facts:
    """Read a piece of a raw file and keep what each family needs of it. Raises DataError."""
    scratch = Scratch(job.scratch, job.storage)
    name = bundle_of_piece(feed, number)
    done = finished(scratch, name)
    if done is not None:
        return done
    mine = {name: family for name, family in families.items() if feed.tasks & set(family.tasks)}
    desks = {name: desk_of(job, family) for name, family in mine.items()}
    tally = Tally(feed.part.name)
    tables = {f"{name}.{table}": schema for name, family in mine.items() for table, schema in family.tables.items()}
    with scratch.writing(name) as file:
        writer = Writer(file, tables)
        for desk in desks.values():
            desk.open(writer)
        _scatter(feed, number, place, [(family, desks[name]) for name, family in mine.items()], tally)
        facts = {"families": {name: desk.close() for name, desk in desks.items()},
                 "tally": [tally.lines, tally.used, tally.bad, tally.skipped, tally.faults]}  # fmt: skip
        writer.close(facts)
    return facts


def _scatter(feed: Feed, number: int, place: Place, mine: list[tuple[Family, Desk]], tally: Tally) -> None:
    """Every record to every family that some entry of the run file gives it to."""
    routes: dict[type, list[tuple[Family, Desk, At, Use]]] = {}
    base = (feed.number << 44) | (number << 24)
    mixed = feed.source.format == "amazonqa"
    several = len({use.category for use in feed.uses if use.category}) > 1
    for running, record in enumerate(read_piece(feed.source, feed.part, place, tally)):
        kind = type(record)
        found = routes.get(kind)
        if found is None:
            found = routes[kind] = list(_routes(feed, kind, record, mine))
        used = not mixed
        for family, desk, at, use in found:
            if isinstance(record, Question) and mixed:
                # A file that names no category is of its entry's; with several entries nobody knows.
                if use.category and record.category != use.category and (record.category or several):
                    continue
                at.group = record.category or use.category
                at.domain = _domain(feed, at.group, "OOD" if use.domain == "OOD" else record.domain)
                used = True
            at.split, at.place = getattr(record, "split", feed.part.split), base + running
            family.scatter(desk, record, at)
        if not used:
            tally.used -= 1
            tally.skip()


def _routes(
    feed: Feed, kind: type, record: SourceRecord, mine: list[tuple[Family, Desk]]
) -> Iterator[tuple[Family, Desk, At, Use]]:
    """Families that take this kind of record, with what the run file says of it."""
    for family, desk in mine:
        if kind not in family.takes:
            continue
        for use in feed.uses:
            tasks = tuple(task for task in family.tasks if task in use.tasks)
            if tasks:
                group = use.category or getattr(record, "group", "")
                yield family, desk, At(feed.label, tasks, group, _domain(feed, group, use.domain)), use


def _domain(feed: Feed, group: str, domain: str) -> str:
    return "HELD" if domain != "OOD" and group in feed.held else domain


def run_stage(job: Job, family: Family, stage: int, part: int) -> Facts:
    """One stage of a family, for one part or (part -1) at once."""
    scratch = Scratch(job.scratch, job.storage)
    desk = desk_of(job, family)
    step = family.stages(desk.recipe)[stage]
    name = bundle_of_stage(family, stage, desk.recipe, part)
    done = finished(scratch, name)
    if done is not None:
        return done
    tables = {f"{family.name}.{table}": schema for table, schema in family.tables.items()}
    with scratch.writing(name) as file:
        writer = Writer(file, tables)
        desk.open(writer)
        if part < 0:
            step.run(desk)
        else:
            step.run(desk, part)
        facts = desk.close()
        writer.close(facts)
    return facts


def finished(scratch: Scratch, name: str) -> Facts | None:
    """The facts of a piece that was done before, else None."""
    try:
        return Bundle(scratch, name).facts
    except FileNotFoundError:
        return None


def sum_up(scratch: Scratch, family: str, stage: str, bundles: list[str], facts: list[Facts]) -> Facts:
    """Write the index of a finished stage: its bundles, its facts summed. Returns the sums."""
    told: dict[str, dict[str, int]] = {}
    drops: dict[str, dict[str, dict[str, int]]] = {}
    for one in facts:
        for fact, counts in one["told"].items():
            add(told.setdefault(fact, {}), counts)
        for task, steps in one["drops"].items():
            for step, counts in steps.items():
                add(drops.setdefault(task, {}).setdefault(step, {}), counts)
    with scratch.writing(index_name(family, stage)) as file:
        file.write(json.dumps({"bundles": bundles, "told": told}).encode())
    return {"told": told, "drops": drops}


def add(into: dict[str, int], counts: Mapping[str, int]) -> None:
    """Add counts to counts."""
    for key, n in counts.items():
        into[key] = into.get(key, 0) + n
