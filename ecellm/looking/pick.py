"""Rows to look at, and rows to count, read file by file: a look at a few costs no more than the files they are in."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator

import pyarrow.compute as pc

from ecellm.errors import DataError
from ecellm.records import KINDS, SPLITS, Row
from ecellm.rows import read_table, row_files, table_rows
from ecellm.storage.base import Storage, join
from ecellm.tasks.registry import TASKS
from ecellm.tasks.registry import task as find_task

FOLDER = "rows"
DIVERSE = KINDS[1]


def rows_of(
    storage: Storage, *, split: str, task: str | None = None, setting: str | None = None, domain: str | None = None
) -> Iterator[Row]:
    """Rows of a split in file order, of a task (any spelling), a setting, or the diverse setting of a domain.

    Raises DataError where OUT has no rows at all.
    """
    wanted = setting or (f"{domain}_{DIVERSE}" if domain else None)
    name = find_task(task).name if task else None
    there = row_files(storage, FOLDER, split)
    if not there and not any(row_files(storage, FOLDER, other) for other in SPLITS):
        raise DataError(f"{join(storage.root, FOLDER)}: no rows", expected="what build makes",
                        mend="run: ecellm build RUN.toml, or give another OUT")  # fmt: skip
    for key in there:
        table = read_table(storage, key)
        for column, value in (("task", name), ("setting", wanted)):
            if value is not None:
                table = table.filter(pc.equal(table[column], value))
        yield from table_rows(table)


def some(
    storage: Storage, n: int, seed: int, *, split: str, task: str | None, setting: str | None, find: str = ""
) -> list[Row]:
    """`n` rows drawn by the hash of seed and id, so that the same call shows the same; of those that hold a text."""

    def place(row: Row) -> str:
        return hashlib.sha256(f"{seed} {row.id} {row.setting}".encode()).hexdigest()

    rows = rows_of(storage, split=split, task=task, setting=setting, domain=None if setting else "IND")
    wanted = find.casefold()
    return heapq.nsmallest(
        n, (row for row in rows if not wanted or wanted in f"{row.input}\n{row.output}".casefold()), key=place
    )


def task_ids() -> list[str]:
    """Ids of all tasks, in the paper's order."""
    return list(TASKS)
