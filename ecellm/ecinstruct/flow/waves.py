"""A build from raw files to finished tasks, in waves: all raw files, then stage by stage of all families, then the
tasks.

Within a wave every piece of work stands alone, so it makes no difference who does it, or how many. Between two waves
the facts are summed. A raw file that fails costs only the tasks that need it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ecellm.ecinstruct.families import FAMILIES, FAMILY_OF
from ecellm.ecinstruct.finish import finish_task
from ecellm.ecinstruct.flow.here import Do, ReadPieces, ScatterPiece, Work
from ecellm.ecinstruct.flow.job import Feed, Job
from ecellm.ecinstruct.flow.perform import add, bundle_of_piece, run_stage, scatter_piece, sum_up
from ecellm.ecinstruct.flow.scratch import Scratch
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

    def run(self, works: Sequence[Work], do: Do) -> list[dict[str, Any]]:
        """The facts of every work, in order."""


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
    wanted = [task for task in tasks if FAMILY_OF[task] in alive]
    stages = {name: FAMILIES[name].stages(job.recipes[FAMILIES[name].tasks[0]]) for name in alive}
    for depth in range(max((len(steps) for steps in stages.values()), default=0)):
        works: list[Work] = [
            {"family": name, "stage": depth, "part": part}
            for name, steps in stages.items() if depth < len(steps)
            for part in (range(job.parts) if steps[depth].kind == "each" else (-1,))
        ]  # fmt: skip
        works.sort(key=lambda work: work["part"] >= 0)  # what is done at once takes longest
        facts = crew.run(works, Doing(job))
        for name, steps in stages.items():
            if depth < len(steps):
                mine = [(work, fact) for work, fact in zip(works, facts, strict=True) if work["family"] == name]
                bundles = [f"{name}/{steps[depth].name}/{max(int(work['part']), 0):05d}" for work, _ in mine]
                summed = sum_up(_scratch(job), name, steps[depth].name, bundles, [fact for _, fact in mine])
                _merge(drops, summed["drops"])
    for task, facts_of in zip(wanted, crew.run([{"task": task} for task in wanted], Doing(job)), strict=True):
        whole = drops.setdefault(task, {})
        _merge({task: whole}, {task: facts_of.pop("drops")})
        facts_of["dropped"] = {
            step: dict(sorted(counts.items())) for step, counts in whole.items() if any(counts.values())
        }
        outcome.tasks[task] = facts_of
        on_task(task, facts_of)
    return outcome


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
