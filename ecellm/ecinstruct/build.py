"""The build stage: raw sources, or the published data set, to `OUT/rows` with its card.

Each task has its own marker (`rows/tasks/ID/COMPLETE`), and a build in progress keeps what it did under `rows/work`,
so a killed build goes on where it was. Small sources are built in this process, big ones on Ray; the rows are the
same.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

from ecellm import console
from ecellm.config.schema import TASK_IDS, Run
from ecellm.ecinstruct.card import card, data_card, whole_task
from ecellm.ecinstruct.families import FAMILY_OF
from ecellm.ecinstruct.finish import FOLDER, part_name
from ecellm.ecinstruct.flow.here import Here
from ecellm.ecinstruct.flow.job import Job
from ecellm.ecinstruct.flow.scratch import Scratch
from ecellm.ecinstruct.flow.waves import Outcome, run_waves
from ecellm.ecinstruct.instructions import wordings
from ecellm.ecinstruct.raw import Raw, feeds_of, gather, held_out
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.wording import own_wordings
from ecellm.errors import ConfigError, DataError
from ecellm.records import SPLITS
from ecellm.rows import row_files
from ecellm.stage import fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, is_remote, join
from ecellm.storage.open import open_storage

VERSION = 4
"""Raise it when a builder's output changes, so that old rows are built again."""
FAMILIES = "families.json"
SMALL_BYTES = 96 << 20
"""Raw bytes that are built in this process unless `build.workers` says otherwise: Ray would take longer to start."""


def build(run: Run) -> dict[str, Any]:
    """Write OUT/rows, unless it is complete for these inputs. Returns its marker's facts, `skipped` where it was.

    Raises ConfigError where a task has no source, DataError for raw files that are missing or broken.
    """
    what = run.build.recipe if not run.sources.published else "published rows"
    console.stage("build", what + (", of made-up data" if run.sources.made_up else ""))
    storage = open_storage(run.out, run.storage)
    if run.sources.published:
        from ecellm.ecinstruct.importing import import_published

        return import_published(run, storage)
    with ExitStack() as stack:
        raw = gather(run, storage, stack, crew_size(run))
        _check(run, raw)
        words = wordings(own_wordings(run), run.seed)
        recipes: dict[str, Recipe] = {task: Recipe.of(run.build, task, run.seed, words[task]) for task in TASK_IDS}
        whole = fingerprint("build", VERSION, recipes, run.build.tasks, [one.identity() for one in raw])
        if is_complete(storage, FOLDER, whole):
            console.console.print("  rows are complete for these inputs: skipped")
            return _facts(storage, FOLDER) | {"skipped": True}
        storage.delete(join(FOLDER, "COMPLETE"))
        tasks = _tasks(run, storage, recipes, raw, whole)
        return _publish(run, storage, tasks, raw, whole, recipes)


def crew_size(run: Run) -> int:
    """Processes that a build may use: as asked, or the cores of this machine."""
    return run.build.workers or os.cpu_count() or 1


def _tasks(run: Run, storage: Storage, recipes: dict[str, Recipe], raw: list[Raw], whole: str) -> dict[str, Any]:
    """Every task's part of the card; those that were complete are not built again."""
    marks: dict[str, str] = {}
    held = held_out(run, raw)
    for task in run.build.tasks:
        # Tasks of a family share their splits, so what one of them has changes the others.
        kin = _kin(run, task)
        mine = [one.identity() for one in raw if any(one.serves(other) for other in kin)]
        marks[task] = fingerprint("task", VERSION, task, [recipes[other] for other in kin], mine, held)
    done: dict[str, Any] = {}
    for task in run.build.tasks:
        folder = join(FOLDER, "tasks", task)
        if is_complete(storage, folder, marks[task]):
            console.console.print(f"  {task:<4} done before")
            done[task] = json.loads(_facts(storage, folder)["card"])
            continue
        storage.delete(join(folder, "COMPLETE"))
        for split in SPLITS:
            storage.delete(join(FOLDER, split, f"{part_name(task)}.parquet"))
    missing: list[str] = [task for task in run.build.tasks if task not in done]
    outcome = _build(run, storage, recipes, raw, whole, missing, marks)
    for _, error in outcome.faults:
        raise error
    for name, facts in outcome.tasks.items():
        if not facts["samples"]["train"]:
            raise _no_sample(name, facts, [one for one in raw if one.serves(name)])
    done |= outcome.tasks
    return {task: done[task] for task in run.build.tasks}


def _build(
    run: Run, storage: Storage, recipes: dict[str, Recipe], raw: list[Raw], whole: str, missing: list[str],
    marks: dict[str, str],
) -> Outcome:  # fmt: skip
    """Build the tasks that are missing; whatever lies in the scratch is not needed after that."""
    total = sum(one.unpacked for one in raw)
    parts, piece_bytes = Job.sizes(total)
    small = total < SMALL_BYTES if run.build.workers == 0 else run.build.workers == 1
    scratch = _scratch(run, storage, fingerprint(whole, parts, piece_bytes)[:16])
    if not missing:  # killed between the last task and the clearing
        scratch.clear()
        return Outcome()
    families = _families(scratch, tuple(dict.fromkeys(FAMILY_OF[task] for task in missing)))
    fed = [task for task in run.build.tasks if FAMILY_OF[task] in families]
    feeds = feeds_of(run, [one for one in raw if any(one.serves(task) for task in fed)], held_out(run, raw))
    job = Job(scratch.root, os.path.abspath(run.out) if not is_remote(run.out) else run.out, run.storage, tuple(feeds),
              recipes, parts, piece_bytes, families)  # fmt: skip

    def on_task(task: str, facts: dict[str, Any]) -> None:
        facts["sources"] = {feed.label: tallies[feed.number] for feed in feeds if task in feed.tasks}
        if facts["samples"]["train"]:
            # As text: the steps are in the order in which they are taken, and a marker sorts its keys.
            publish(storage, join(FOLDER, "tasks", task), marks[task], card=json.dumps(whole_task(facts)))
        console.console.print(f"  {task:<4} " + "  ".join(f"{pool} {n:>6}" for pool, n in facts["samples"].items()))

    tallies: dict[int, Any] = {}
    crew: Any = nullcontext(Here())
    if not small:
        from ecellm.ecinstruct.flow.cluster import Cluster

        crew = Cluster(run, crew_size(run))
    with crew as there:
        outcome = run_waves(job, there, missing, run.sources.max_bad_share, on_task, tallies)
    scratch.clear()
    return outcome


def _kin(run: Run, task: str) -> list[str]:
    """The tasks of this build that are of one family with a task, itself among them."""
    return [other for other in run.build.tasks if FAMILY_OF[other] == FAMILY_OF[task]]


def _scratch(run: Run, storage: Storage, name: str) -> Scratch:
    """Where this build's parts go; those of other builds of the same rows are removed."""
    if run.build.scratch:
        return Scratch(join(run.build.scratch, f"{run.name}-{name}"), run.storage)
    root = join(storage.root, FOLDER, "work")
    if not is_remote(root):
        root = os.path.abspath(root)
        for other in os.listdir(root) if os.path.isdir(root) else ():
            if other != name:
                Scratch(join(root, other)).clear()
    return Scratch(join(root, name), run.storage)


def _families(scratch: Scratch, needed: tuple[str, ...]) -> tuple[str, ...]:
    """The families that the parts in a scratch are of; where one that is needed is not among them, all is done anew.

    A build that was killed while it wrote its tasks needs fewer than it began with, and finds the parts of all.
    """
    with suppress(FileNotFoundError, ValueError):  # a disk that lost its power may have kept half of it
        known: list[str] = json.loads(scratch.read(FAMILIES))
        if set(needed) <= set(known):
            return tuple(known)
    scratch.clear()
    with scratch.writing(FAMILIES) as file:
        file.write(json.dumps(needed).encode())
    return needed


def _publish(
    run: Run, storage: Storage, tasks: dict[str, Any], raw: list[Raw], whole: str, recipes: dict[str, Recipe]
) -> dict[str, Any]:
    _remove_others(storage, run.build.tasks)
    made_up = any(one.made_up for one in raw)
    data = card(
        run, tasks, [one.facts() for one in raw], recipes[run.build.tasks[0]], made_up=made_up, fingerprint=whole
    )
    storage.write(join(FOLDER, "card.json"), data)
    storage.write(join(FOLDER, "README.md"), data_card(data))
    counts = {task: facts["samples"] for task, facts in tasks.items()}
    publish(storage, FOLDER, whole, samples=counts, made_up=made_up, card_sha256=hashlib.sha256(data).hexdigest())
    return _facts(storage, FOLDER)


def _no_sample(task: str, facts: dict[str, Any], raw: list[Raw]) -> DataError:
    dropped = ", ".join(f"{sum(counts.values())} {step}" for step, counts in facts["dropped"].items()) or "nothing"
    return DataError(
        f"{task}: no training sample",
        found=f"{', '.join(one.label for one in raw)}; left out: {dropped}",
        expected="at least one sample",
        mend="add sources for it, or leave it out of build.tasks",
    )


def _check(run: Run, raw: list[Raw]) -> None:
    without = [task for task in run.build.tasks if not any(one.serves(task) for one in raw)]
    if without:
        raise ConfigError(
            "build.tasks: no source for " + ", ".join(without),
            found=", ".join(one.label for one in raw) or "no sources",
            expected="for each task a file whose format can serve it",
            mend="add [[sources.files]], set sources.made_up or sources.published, or leave the tasks out",
        )


def _remove_others(storage: Storage, tasks: tuple[str, ...]) -> None:
    """Rows of tasks that this run does not build."""
    wanted = {f"{part_name(task)}.parquet" for task in tasks}
    for split in SPLITS:
        for key in row_files(storage, FOLDER, split):
            if key.rpartition("/")[2] not in wanted:
                storage.delete(key)
    for task in set(TASK_IDS) - set(tasks):
        storage.delete(join(FOLDER, "tasks", task, "COMPLETE"))


def _facts(storage: Storage, folder: str) -> dict[str, Any]:
    return dict(marker(storage, folder) or {})
