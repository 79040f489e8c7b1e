"""The build stage for the published data set: its rows, as they are, in our files. Nothing is built or drawn."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from typing import Any

from ecellm.config.schema import Run
from ecellm.ecinstruct.card import card
from ecellm.ecinstruct.published import BATCH, rows_of
from ecellm.records import SPLITS, Row
from ecellm.rows import row_files, write_rows
from ecellm.sources.read import local_copy
from ecellm.stage import fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, is_remote, join

VERSION = 1
FOLDER = "rows"


def import_published(run: Run, storage: Storage) -> dict[str, Any]:
    """Write OUT/rows from `sources.published` in batches of bounded size. Returns the marker's facts."""
    location = run.sources.published
    if not is_remote(location) and not os.path.isabs(location) and not os.path.exists(location):
        beside = join(run.sources.root, location)
        location = beside if os.path.isfile(beside) else location
    if is_remote(location):
        with local_copy(location, run.storage) as path:
            return _write(run, storage, path)
    return _write(run, storage, location)


def _write(run: Run, storage: Storage, location: str) -> dict[str, Any]:
    digest = _sha256(location)
    whole = fingerprint("published", VERSION, digest)
    if not is_complete(storage, FOLDER, whole):
        storage.delete(join(FOLDER, "COMPLETE"))
        for split in SPLITS:
            for key in row_files(storage, FOLDER, split):
                storage.delete(key)
        counts = _copy(storage, location)
        tasks: dict[str, dict[str, dict[str, int]]] = {}
        for (task, split, setting), n in sorted(counts.items()):
            tasks.setdefault(task, {}).setdefault(split, {})[setting] = n
        sources = [{"source": f"published:{os.path.basename(location)}", "format": "published", "sha256": digest}]
        parts = {task: {"rows": rows} for task, rows in tasks.items()}
        data = card(parts, sources, seed=run.seed, made_up=False, fingerprint=whole)
        storage.write(join(FOLDER, "card.json"), data)
        publish(storage, FOLDER, whole, rows=sum(counts.values()), card_sha256=hashlib.sha256(data).hexdigest())
    return dict(marker(storage, FOLDER) or {})


def _copy(storage: Storage, location: str) -> Counter[tuple[str, str, str]]:
    waiting: dict[str, list[Row]] = {split: [] for split in SPLITS}
    parts, counts = Counter[str](), Counter[tuple[str, str, str]]()

    def flush(split: str) -> None:
        write_rows(storage, FOLDER, waiting[split], f"part-{parts[split]:05d}")
        parts[split] += 1
        waiting[split] = []

    for row in rows_of(location):
        waiting[row.split].append(row)
        counts[row.task, row.split, row.setting] += 1
        if len(waiting[row.split]) == BATCH:
            flush(row.split)
    for split in SPLITS:
        if waiting[split]:
            flush(split)
    return counts


def _sha256(location: str) -> str:
    """Of a file; a hub name stands for itself."""
    if not os.path.isfile(location):
        return location
    with open(location, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
