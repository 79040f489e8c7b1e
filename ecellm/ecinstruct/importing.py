"""The build stage for the published data set: its rows, as they are, in our files. Nothing is built or drawn.

What is there is held against the sizes that the spec gives (A.4): a difference is told, on the card and to the person,
and is no error, since earlier revisions and parts of the data set are data too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from typing import Any

from ecellm import console
from ecellm.config.schema import TASK_IDS, Run
from ecellm.ecinstruct.published import BATCH, is_dataset, rows_of
from ecellm.ecinstruct.recipe import NO_OOD
from ecellm.records import KINDS, SPLITS, Row
from ecellm.rows import row_files, write_rows
from ecellm.sources.opening import digest_of, exists
from ecellm.sources.web import is_web
from ecellm.stage import fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, is_remote, join
from ecellm.tasks.registry import task as find_task

VERSION = 2
FOLDER = "rows"
PM_SIZES = {"train": 2022, "val": 253, "test": 253}
SIZES = {"train": 10_000, "val": 1_000, "test": 1_000}
SHOWN = 8
"""Differences that are told to the person; the card has all."""
Counts = Counter[tuple[str, str, str]]


def expected_counts() -> Counts:
    """(task, split, setting) -> rows of the published file (spec A.4): 263,562 in all."""
    counts: Counts = Counter()
    for task in TASK_IDS:
        sizes = PM_SIZES if task == "PM" else SIZES
        for split, size in sizes.items():
            for kind in KINDS if split == "test" else KINDS[:2]:
                counts[task, split, f"IND_{kind}"] = size
                if split == "test" and task not in NO_OOD:
                    counts[task, split, f"OOD_{kind}"] = size
    return counts


def differences(found: Counts) -> list[str]:
    """What is more or less than published, as `PM test IND_Single_Instruction: 250 rows, published 253`."""
    expected = expected_counts()
    names = sorted({*found, *expected}, key=lambda name: (list(TASK_IDS).index(name[0]), name))  # type: ignore[arg-type]
    return [f"{' '.join(name)}: {found[name]:,} rows, published {expected[name]:,}" for name in names
            if found[name] != expected[name]]  # fmt: skip


def import_published(run: Run, storage: Storage) -> dict[str, Any]:
    """Write OUT/rows from `sources.published` in batches of bounded size. Returns the marker's facts."""
    location = run.sources.published
    if (
        not is_remote(location)
        and not is_web(location)
        and not os.path.isabs(location)
        and not os.path.exists(location)
    ):
        beside = join(run.sources.root, location)
        location = beside if exists(beside, run.storage) else location
    digest = location if is_dataset(location) else digest_of(location, run.storage)
    labels = f"{location.rpartition('/')[0] or '.'}/label.json"
    if not is_dataset(location) and not is_web(location) and exists(labels, run.storage):
        digest += digest_of(labels, run.storage)
    whole = fingerprint("published", VERSION, digest)
    if is_complete(storage, FOLDER, whole):
        console.console.print("  rows are complete for these inputs: skipped")
        return dict(marker(storage, FOLDER) or {})
    storage.delete(join(FOLDER, "COMPLETE"))
    for split in SPLITS:
        for key in row_files(storage, FOLDER, split):
            storage.delete(key)
    counts = _copy(run, storage, location)
    data = _card(run, location, digest, counts, whole)
    storage.write(join(FOLDER, "card.json"), data)
    _tell(counts)
    publish(storage, FOLDER, whole, rows=sum(counts.values()), card_sha256=hashlib.sha256(data).hexdigest())
    return dict(marker(storage, FOLDER) or {})


def _tell(counts: Counts) -> None:
    differ = differences(counts)
    console.note(
        f"{sum(counts.values()):,} rows" + ("" if differ else ", in the numbers that were published (spec A.4)")
    )
    if differ:
        console.note(f"{len(differ)} numbers of rows differ from the published ones (card.json has all):")
        for line in differ[:SHOWN]:
            console.note(f"  {line}")


def _card(run: Run, location: str, digest: str, counts: Counts, whole: str) -> bytes:
    tasks: dict[str, Any] = {}
    for (task, split, setting), n in sorted(counts.items()):
        tasks.setdefault(task, {"rows": {}})["rows"].setdefault(split, {})[setting] = n
    name = location if is_dataset(location) else os.path.basename(location)
    said = {
        "made_up": False,
        "seed": run.seed,
        "recipe": "published",
        "fingerprint": whole,
        "rows": sum(counts.values()),
        "published_rows": sum(expected_counts().values()),
        "differences_from_published": differences(counts),
        "sources": [
            {"source": f"published:{name}", "format": "published", "sha256": digest[:64], "licence": "CC BY 4.0"}
        ],
        "tasks": tasks,
    }
    return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def _copy(run: Run, storage: Storage, location: str) -> Counts:
    waiting: dict[str, list[Row]] = {split: [] for split in SPLITS}
    parts, counts = Counter[str](), Counter[tuple[str, str, str]]()

    def flush(split: str) -> None:
        write_rows(storage, FOLDER, waiting[split], f"part-{parts[split]:05d}")
        parts[split] += 1
        waiting[split] = []

    for row in rows_of(location, run.storage):
        waiting[row.split].append(row)
        counts[find_task(row.task).id, row.split, row.setting] += 1
        if len(waiting[row.split]) == BATCH:
            flush(row.split)
    for split in SPLITS:
        if waiting[split]:
            flush(split)
    return counts
