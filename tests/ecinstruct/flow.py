"""Runs a family's steps on records at hand, in as many parts as one likes: what the build does, without raw files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ecellm.config.mends import Mended, Mends
from ecellm.config.schema import Storage
from ecellm.ecinstruct.choose import Chosen, choose
from ecellm.ecinstruct.families import FAMILIES, FAMILY_OF
from ecellm.ecinstruct.flow.bundle import Writer
from ecellm.ecinstruct.flow.family import At
from ecellm.ecinstruct.flow.job import Job
from ecellm.ecinstruct.flow.perform import desk_of, run_stage, sum_up
from ecellm.ecinstruct.flow.scratch import Scratch
from ecellm.ecinstruct.instructions import own_wording
from ecellm.ecinstruct.leaks import broken, shared
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.samples import POOLS, Sample

Sourced = tuple[str, Any]


def recipe(task: str, kind: str = "sound", **more: Any) -> Recipe:
    """A recipe for tests; `mends` by name."""
    paper = kind == "paper"
    mends = Mended.of(kind, Mends(**more.pop("mends", {})))  # type: ignore[arg-type]
    base = Recipe(task=task, paper=paper, mends=mends, words=own_wording(task, 1), near=0.0, language=False)
    return replace(base, **more)


@dataclass(frozen=True)
class Built:
    """What came of it."""

    task: str
    chosen: Chosen
    dropped: dict[str, int]
    changed: dict[str, int]
    offered: int
    near: float

    def pool(self, name: str) -> list[Sample]:
        return [one.sample(self.task) for one in self.chosen.pools[name]]

    @property
    def all(self) -> list[Sample]:
        return [sample for name in POOLS for sample in self.pool(name)]

    @property
    def leaks(self) -> list[str]:
        return [
            said
            for said in broken(self.task, shared(self.task, self.chosen))
            if self.near or "near_duplicate" not in said
        ]


def build(task: str, records: Iterable[Sourced], how: Recipe, parts: int = 3) -> Built:
    """Samples of records (label, record), by every step of the task's family."""
    with tempfile.TemporaryDirectory() as folder:
        return _build(task, list(records), how, parts, folder)


def _build(task: str, records: list[Sourced], how: Recipe, parts: int, folder: str) -> Built:
    family = FAMILIES[FAMILY_OF[task]]
    recipes = {name: replace(how, task=name, words=own_wording(name, how.seed)) for name in family.tasks}
    job = Job(folder, folder, Storage(), (), recipes, parts, 1, (family.name,))
    scratch, desk = Scratch(folder), desk_of(job, family)
    with scratch.writing("scatter/0") as file:
        writer = Writer(file, {f"{family.name}.{name}": schema for name, schema in family.tables.items()})
        desk.open(writer)
        for place, (label, record) in enumerate(records):
            if isinstance(record, family.takes):
                group = getattr(record, "group", "") or (getattr(record, "category", "") if family.name == "QA" else "")
                at = At(
                    label, family.tasks, group, getattr(record, "domain", "IND"), getattr(record, "split", ""), place
                )
                family.scatter(desk, record, at)
        facts = desk.close()
        writer.close(facts)
    drops = [sum_up(scratch, family.name, "scatter", ["scatter/0"], [facts])["drops"]]
    for number, stage in enumerate(family.stages(desk.recipe)):
        every = range(parts) if stage.kind == "each" else (-1,)
        done = [run_stage(job, family, number, part) for part in every]
        names = [f"{family.name}/{stage.name}/{max(part, 0):05d}" for part in every]
        drops.append(sum_up(scratch, family.name, stage.name, names, done)["drops"])
    last = desk_of(job, family)
    chosen = choose(last, task)
    drops.append(last.drops)
    dropped: dict[str, int] = {}
    for one in drops:
        for step, counts in one.get(task, {}).items():
            dropped[step] = dropped.get(step, 0) + sum(counts.values())
    stage = family.drawn_from(desk.recipe, task)
    offered = last.facts(f"pools/{task}", family.last(desk.recipe)) or last.facts(f"pool/{task}", stage)
    left = {step: n for step, n in dropped.items() if n}
    return Built(task, chosen, left, last.changes(task), sum(offered.values()), how.near)
