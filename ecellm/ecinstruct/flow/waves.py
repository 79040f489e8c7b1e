"""A build from raw files to finished tasks, in waves: all raw files, then each family's stages, then its tasks.

Within a wave every piece of work stands alone, so it makes no difference who does it, or how many. Between two waves
the facts are summed. Families do not wait for each other, and a raw file that fails costs only the tasks that need it.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ecellm.ecinstruct.families import FAMILIES, FAMILY_OF
from ecellm.ecinstruct.finish import finish_task
from ecellm.ecinstruct.flow.here import Do, ReadPieces, ScatterPiece, Then, Work
from ecellm.ecinstruct.flow.job import Feed, Job
from ecellm.ecinstruct.flow.perform import add, bundle_of_piece, bundle_of_stage, run_stage, scatter_piece, sum_up
from ecellm.ecinstruct.flow.scratch import Scratch
from ecellm.ecinstruct.recipe import Recipe
from ecellm.errors import EcellmError
from ecellm.sources.read import pieces_of
from ecellm.sources.tally import Tally


class Crew(Protocol):
    """Who does the work: this process, or a Ray cluster."""

    workers: int

    def scatter(
        self, feeds: Sequence[Feed], pieces: ReadPieces, do: ScatterPiece
    ) -> Iterable[tuple[int, int, dict[str, Any] | EcellmError]]:
        """(feed, piece, facts or fault) of every piece of every file, in any order."""

    def work(self, first: Sequence[Work], do: Do, then: Then) -> None:
        """Do all works, and those that follow them, in any order."""


Drops = dict[str, dict[str, dict[str, int]]]


@dataclass(slots=True)
class Outcome:
    """What became of a build's tasks."""

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Task -> its part of the card."""
    tallies: dict[int, Tally] = field(default_factory=dict)
    """Feed -> what its reader counted."""
    faults: list[tuple[frozenset[str], EcellmError]] = field(default_factory=list)
    """Tasks that could not be built, and why."""


class Reading:
    """Pieces of raw files; a value that travels to workers."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, feed: Feed) -> Iterator[Any]:
        return pieces_of(feed.source, feed.part, self.job.storage, self.job.piece_bytes)


class Scattering:
    """The first step for one piece."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, feed: Feed, number: int, place: Any) -> dict[str, Any]:
        families = {name: FAMILIES[name] for name in self.job.families}
        with _uncollected():
            return scatter_piece(self.job, families, feed, number, place)


class Doing:
    """Every later step: a stage of a family, or the end of a task."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, work: Work) -> dict[str, Any]:
        with _uncollected():
            if "task" in work:
                return finish_task(self.job, work["task"])
            return run_stage(self.job, FAMILIES[work["family"]], work["stage"], work["part"])


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing looks for cycles: the many small rows of a piece make none, and it took a seventh of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def run_waves(
    job: Job, crew: Crew, tasks: Sequence[str], max_bad_share: float, on_task: Callable[[str, dict[str, Any]], None],
    tallies: dict[int, Any],
) -> Outcome:  # fmt: skip
    """Build `tasks`; `on_task` hears of each that is done, when `tallies` has what the readers counted.

    Raises only what is no fault of one raw file.
    """
    outcome = Outcome()
    drops: Drops = {}
    alive = _scatter(job, crew, max_bad_share, outcome, drops)
    tallies.update({number: tally.facts() for number, tally in outcome.tallies.items()})
    later = Later(job, [task for task in tasks if FAMILY_OF[task] in alive], drops, outcome, on_task)
    crew.work(later.first(), Doing(job), later.after)
    return outcome


class Later:
    """What follows the first wave: each family's stages, one after another, then its tasks."""

    def __init__(
        self, job: Job, tasks: Sequence[str], drops: Drops, outcome: Outcome,
        on_task: Callable[[str, dict[str, Any]], None],
    ) -> None:  # fmt: skip
        self._job, self._tasks, self._drops, self._outcome, self._on_task = job, tasks, drops, outcome, on_task
        self._done: dict[tuple[str, int], dict[int, dict[str, Any]]] = defaultdict(dict)

    def first(self) -> list[Work]:
        """What can be done at once."""
        works = [
            work for name in dict.fromkeys(FAMILY_OF[task] for task in self._tasks) for work in self._step(name, 0)
        ]
        return sorted(works, key=lambda work: work.get("part", -1) >= 0)  # what is not in parts takes longest

    def after(self, work: Work, facts: dict[str, Any]) -> list[Work]:
        """What can be done now that this is."""
        if "task" in work:
            self._finish(work["task"], facts)
            return []
        name, stage = work["family"], work["stage"]
        done = self._done[name, stage]
        done[work["part"]] = facts
        if len(done) < len(self._step(name, stage)):
            return []
        family, recipe = FAMILIES[name], self._recipe(name)
        bundles = [bundle_of_stage(family, stage, recipe, part) for part in sorted(done)]
        step = family.stages(recipe)[stage].name
        summed = sum_up(_scratch(self._job), name, step, bundles, [done[part] for part in sorted(done)])
        _merge(self._drops, summed["drops"])
        return self._step(name, stage + 1)

    def _step(self, name: str, stage: int) -> list[Work]:
        """The parts of a stage, or after the last one the tasks."""
        stages = FAMILIES[name].stages(self._recipe(name))
        if stage == len(stages):
            return [{"task": task} for task in self._tasks if FAMILY_OF[task] == name]
        parts = range(self._job.parts) if stages[stage].kind == "each" else (-1,)
        return [{"family": name, "stage": stage, "part": part} for part in parts]

    def _recipe(self, name: str) -> Recipe:
        return self._job.recipes[FAMILIES[name].tasks[0]]

    def _finish(self, task: str, facts: dict[str, Any]) -> None:
        whole = self._drops.setdefault(task, {})
        _merge({task: whole}, {task: facts.pop("drops")})
        facts["dropped"] = {
            step: dict(sorted(counts.items())) for step, counts in whole.items() if any(counts.values())
        }
        self._outcome.tasks[task] = facts
        self._on_task(task, facts)


def _scatter(job: Job, crew: Crew, max_bad_share: float, outcome: Outcome, drops: Drops) -> list[str]:
    """The first wave. Returns the families whose raw files were whole."""
    scratch = _scratch(job)
    found: dict[int, dict[int, dict[str, Any]]] = {feed.number: {} for feed in job.feeds}
    failed: dict[int, EcellmError] = {}
    for number, piece, facts in crew.scatter(job.feeds, Reading(job), Scattering(job)):
        if isinstance(facts, EcellmError):
            failed.setdefault(number, facts)
        else:
            found[number][piece] = facts
    dead: set[str] = set()
    for feed in job.feeds:
        tally = outcome.tallies[feed.number] = Tally(feed.label)
        for _, facts in sorted(found[feed.number].items()):
            tally.add(*facts["tally"])
        try:
            if feed.number in failed:
                raise failed[feed.number]
            tally.check(max_bad_share)
        except EcellmError as error:
            outcome.faults.append((feed.tasks, error))
            dead |= {FAMILY_OF[task] for task in feed.tasks}
    alive = [name for name in job.families if name not in dead]
    for name in alive:
        mine = [(bundle_of_piece(feed, piece), facts["families"][name])
                for feed in job.feeds for piece, facts in sorted(found[feed.number].items())
                if name in facts["families"]]  # fmt: skip
        summed = sum_up(scratch, name, "scatter", [bundle for bundle, _ in mine], [facts for _, facts in mine])
        _merge(drops, summed["drops"])
    return alive


def _merge(into: Drops, more: Drops) -> None:
    for task, steps in more.items():
        for step, counts in steps.items():
            add(into.setdefault(task, {}).setdefault(step, {}), counts)


def _scratch(job: Job) -> Scratch:
    return Scratch(job.scratch, job.storage)
