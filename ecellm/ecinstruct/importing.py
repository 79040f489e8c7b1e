"""The build stage for the published data set: its rows, as they are, in our files. Nothing is built or drawn.

What is there is held against the sizes that the spec gives (A.4): a difference is told, on the card and to the person,
and is no error, since earlier revisions and parts of the data set are data too.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from importlib.resources import files
from itertools import chain, islice
from typing import Any

from ecellm import console
from ecellm.config.schema import TASK_IDS, Run
from ecellm.ecinstruct.published import BATCH, Published, find
from ecellm.ecinstruct.recipe import NO_OOD
from ecellm.records import KINDS, SPLITS, Row
from ecellm.rows import write_rows
from ecellm.stage import clear, fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, join
from ecellm.tasks.registry import TASKS
from ecellm.tasks.registry import task as find_task

VERSION = 3
FOLDER = "rows"
PM_SIZES = {"train": 2022, "val": 253, "test": 253}
SIZES = {"train": 10_000, "val": 1_000, "test": 1_000}
SHOWN = 8
"""Differences that are told to the person; the card has all."""
LICENCE = "CC BY 4.0, and for each subset the licence of its source"
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
    """Write OUT/rows from `sources.published` in batches of bounded size. Returns the marker's facts.

    Whatever was there goes first, with the marks of tasks that were built: no row of a build stays among these.
    """
    published = find(run.sources.published, run.sources.root, run.storage)
    digest, labels = published.digests()
    whole = fingerprint("published", VERSION, published.name, digest, labels)
    there = marker(storage, FOLDER) or {}
    unasked = not published.files and not published.revision  # the hub is out of reach: what came from it stays
    if is_complete(storage, FOLDER, whole) or (unasked and there.get("published") == published.name):
        console.console.print("  rows are complete for these inputs: skipped")
        return {**there, "skipped": True}
    rows = published.rows()
    first = list(islice(rows, 1))  # what cannot be read at all leaves the rows that are there
    clear(storage, FOLDER)
    counts = _copy(storage, chain(first, rows))
    data = _card(run, published, digest, counts, whole)
    storage.write(join(FOLDER, "card.json"), data)
    storage.write(join(FOLDER, "README.md"), data_card(data))
    _tell(counts)
    publish(storage, FOLDER, whole, published=published.name, rows=sum(counts.values()),
            card_sha256=hashlib.sha256(data).hexdigest())  # fmt: skip
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


def _card(run: Run, published: Published, digest: str, counts: Counts, whole: str) -> bytes:
    tasks: dict[str, Any] = {}
    for (task, split, setting), n in sorted(counts.items()):
        tasks.setdefault(task, {"rows": {}})["rows"].setdefault(split, {})[setting] = n
    said = {
        "made_up": False,
        "seed": run.seed,
        "recipe": "published",
        "fingerprint": whole,
        "rows": sum(counts.values()),
        "published_rows": sum(expected_counts().values()),
        "differences_from_published": differences(counts),
        "sources": [
            {"source": f"published:{published.name}", "format": "published", "sha256": digest, "licence": LICENCE}
        ],
        "tasks": tasks,
    }
    return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def data_card(card_json: bytes) -> bytes:
    """README.md in the form of the Hugging Face hub, as builds have one."""
    import jinja2

    said = json.loads(card_json)
    cells = sorted({(split, setting) for facts in said["tasks"].values()
                    for split, of in facts["rows"].items() for setting in of},
                   key=lambda cell: (SPLITS.index(cell[0]), cell[1][:3], KINDS.index(cell[1][4:])))  # fmt: skip
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                     keep_trailing_newline=True)  # fmt: skip
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    text = files("ecellm.ecinstruct").joinpath("imported.md.j2").read_text("utf-8")
    names = {task: TASKS[task].name for task in said["tasks"]}
    return environment.from_string(text).render(card=said, names=names, cells=cells).encode()


def _copy(storage: Storage, rows: Iterable[Row]) -> Counts:
    waiting: dict[str, list[Row]] = {split: [] for split in SPLITS}
    parts, counts = Counter[str](), Counter[tuple[str, str, str]]()

    def flush(split: str) -> None:
        write_rows(storage, FOLDER, waiting[split], f"part-{parts[split]:05d}")
        parts[split] += 1
        waiting[split] = []

    for row in rows:
        waiting[row.split].append(row)
        counts[find_task(row.task).id, row.split, row.setting] += 1
        if len(waiting[row.split]) == BATCH:
            flush(row.split)
    for split in SPLITS:
        if waiting[split]:
            flush(split)
    return counts
