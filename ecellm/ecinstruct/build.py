"""The build stage: raw sources, or the published data set, to `OUT/rows` with its card.

Each task has its own marker (`rows/tasks/ID/COMPLETE`), so a killed build goes on with the task it was at. A task's
Parquet files are numbered by the task's place, so no task overwrites another's.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ecellm import console
from ecellm.config.schema import TASK_IDS, Run, SourceFile, TaskId
from ecellm.ecinstruct import attributes, matching, queries, questions, recommendation, relations, sentiment
from ecellm.ecinstruct.card import card, task_facts
from ecellm.ecinstruct.samples import Recipe, Samples, Sourced
from ecellm.ecinstruct.settings import to_rows
from ecellm.errors import ConfigError, DataError
from ecellm.records import SPLITS
from ecellm.rows import row_files, write_rows
from ecellm.sources.read import FORMAT_TASKS, Tally, find, local_copy, read_source
from ecellm.stage import fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, is_remote, join
from ecellm.storage.local import told
from ecellm.storage.open import open_storage

VERSION = 1
"""Raise it when a builder's output changes, so that old rows are built again."""
FOLDER = "rows"
BUILDERS: dict[str, Callable[[str, list[Sourced], Recipe], Samples]] = {
    "AVE": attributes.build, "PRP": relations.build, "PM": matching.build, "SA": sentiment.build,
    "SR": recommendation.build, "MPC": queries.build, "PSI": queries.build, "QPR": queries.build,
    "AP": questions.build, "AG": questions.build,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Raw:
    """One raw file at hand: its entry, the root it is found from, its digest and whether it was made up."""

    entry: SourceFile
    root: str
    sha256: str
    size: int
    made_up: bool

    @property
    def label(self) -> str:
        """Format and name, as rows and the card show it."""
        name = os.path.basename(self.entry.path.rstrip("/"))
        return f"{self.entry.format}:{name}" + (" (made up)" if self.made_up else "")

    def serves(self, task: str) -> bool:
        """Whether a task may and can use it."""
        return task in FORMAT_TASKS[self.entry.format] and (not self.entry.tasks or task in self.entry.tasks)


def build(run: Run) -> dict[str, Any]:
    """Write OUT/rows, unless it is complete for these inputs. Returns its marker's facts.

    Raises ConfigError where a task has no source, DataError for raw files that are missing or broken.
    """
    console.stage("build", run.build.recipe if not run.sources.published else "published rows")
    storage = open_storage(run.out, run.storage)
    if run.sources.published:
        from ecellm.ecinstruct.importing import import_published

        return import_published(run, storage)
    with ExitStack() as stack:
        raw = _gather(run, storage, stack)
        _check(run, raw)
        whole = fingerprint("build", VERSION, _wordings(), run.seed, run.build, [_identity(one) for one in raw])
        if is_complete(storage, FOLDER, whole):
            console.console.print("  rows are complete for these inputs: skipped")
            return _facts(storage, FOLDER)
        storage.delete(join(FOLDER, "COMPLETE"))
        tasks: dict[str, Any] = {task: _task(run, storage, task, raw) for task in run.build.tasks}
        _remove_others(storage, run.build.tasks)
        made_up = any(one.made_up for one in raw)
        sources = [{"source": one.label, "format": one.entry.format, "sha256": one.sha256, "bytes": one.size,
                    "made_up": one.made_up} for one in raw]  # fmt: skip
        data = card(tasks, sources, seed=run.seed, made_up=made_up, recipe=run.build.recipe,
                    negatives=run.build.negatives, fingerprint=whole)  # fmt: skip
        storage.write(join(FOLDER, "card.json"), data)
        counts = {task: facts["samples"] for task, facts in tasks.items()}
        publish(storage, FOLDER, whole, samples=counts, made_up=made_up, card_sha256=hashlib.sha256(data).hexdigest())
        return _facts(storage, FOLDER)


def _task(run: Run, storage: Storage, task: TaskId, raw: list[Raw]) -> dict[str, Any]:
    """Build one task's rows, unless its own marker says that they are there. Returns its part of the card."""
    mine = [one for one in raw if one.serves(task)]
    recipe = Recipe.of(run.build, task, run.seed)
    mark = fingerprint("task", VERSION, task, _wordings(), recipe, [_identity(one) for one in mine])
    folder = join(FOLDER, "tasks", task)
    if is_complete(storage, folder, mark):
        console.console.print(f"  {task:<4} done before")
        return _facts(storage, folder)["card"]  # type: ignore[no-any-return]
    storage.delete(join(folder, "COMPLETE"))
    part = _part(task)
    for split in SPLITS:
        storage.delete(join(FOLDER, split, f"{part}.parquet"))
    records: list[Sourced] = []
    tallies: dict[str, object] = {}
    for one in mine:
        tally = Tally(one.label)
        records.extend((one.label, record) for record in read_source(one.entry, one.root, tally, run.storage))
        tally.check(run.sources.max_bad_share)
        tallies[one.label] = tally.facts()
    samples = BUILDERS[task](task, records, recipe)
    _refuse_empty(task, samples, mine)
    rows = list(to_rows(task, samples, run.seed))
    write_rows(storage, FOLDER, rows, part)
    facts = task_facts(samples, rows, recipe, tallies)
    publish(storage, folder, mark, card=facts)
    counts = facts["samples"]
    console.console.print(f"  {task:<4} train {counts['train']:>6}  val {counts['val']:>5}  test {counts['test']:>5}"
                          f"  ood {counts['ood']:>5}")  # fmt: skip
    return facts


def _refuse_empty(task: str, samples: Samples, raw: list[Raw]) -> None:
    if samples.train:
        return
    dropped = ", ".join(f"{count} {reason}" for reason, count in samples.dropped.items()) or "nothing"
    raise DataError(
        f"{task}: no training sample",
        found=f"{', '.join(one.label for one in raw)}; left out: {dropped}",
        expected="at least one sample",
        mend="add sources for it, or leave it out of build.tasks",
    )


def _gather(run: Run, storage: Storage, stack: ExitStack) -> list[Raw]:
    """All raw files: the made-up ones, written now, and those that the run file lists."""
    found = []
    if run.sources.made_up is not None:
        from ecellm.sources.marketplace.write import write_marketplace

        if is_remote(storage.root):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecellm-raw-"))
        else:
            folder = join(storage.root, "raw")
            with told("write", folder):
                os.makedirs(folder, exist_ok=True)
        with told("write", folder):
            entries = write_marketplace(folder, run.sources.made_up, run.seed)
        for entry in entries:
            found.append(Raw(entry, folder, *_digest(entry, folder, run), made_up=True))
    for entry in run.sources.files:
        found.append(Raw(entry, run.sources.root, *_digest(entry, run.sources.root, run), made_up=False))
    return found


def _digest(entry: SourceFile, root: str, run: Run) -> tuple[str, int]:
    """(sha256, bytes) of a file, or of a folder's files with their names in order."""
    whole, size = hashlib.sha256(), 0
    with local_copy(find(entry, root), run.storage) as path:
        for name in _files(path):
            if name != path:
                whole.update(os.path.relpath(name, path).encode() + b"\0")
            with open(name, "rb") as file:
                while block := file.read(1 << 20):
                    whole.update(block)
                    size += len(block)
    return whole.hexdigest(), size


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    yield from sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def _check(run: Run, raw: list[Raw]) -> None:
    without = [task for task in run.build.tasks if not any(one.serves(task) for one in raw)]
    if without:
        raise ConfigError(
            "build.tasks: no source for " + ", ".join(without),
            found=", ".join(one.label for one in raw) or "no sources",
            expected="for each task a file whose format can serve it",
            mend="add [[sources.files]], set sources.made_up or sources.published, or leave the tasks out",
        )


def _identity(raw: Raw) -> object:
    return [raw.entry.model_dump(mode="json", exclude={"path"}), raw.label, raw.sha256]


def _wordings() -> str:
    folder = files("ecellm.ecinstruct").joinpath("instructions")
    texts = sorted((file.name, file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".toml"))
    return fingerprint(texts)


def _part(task: TaskId) -> str:
    return f"part-{list(TASK_IDS).index(task):05d}"


def _remove_others(storage: Storage, tasks: tuple[TaskId, ...]) -> None:
    """Rows of tasks that this run does not build."""
    wanted = {f"{_part(task)}.parquet" for task in tasks}
    for split in SPLITS:
        for key in row_files(storage, FOLDER, split):
            if key.rpartition("/")[2] not in wanted:
                storage.delete(key)
    for task in set(TASK_IDS) - set(tasks):
        storage.delete(join(FOLDER, "tasks", task, "COMPLETE"))


def _facts(storage: Storage, folder: str) -> dict[str, Any]:
    return dict(marker(storage, folder) or {})
