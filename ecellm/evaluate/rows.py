"""Which test rows are evaluated: the settings and tasks asked for, all of them or the same draw everywhere."""

from __future__ import annotations

import hashlib

from ecellm.config.schema import Run
from ecellm.errors import DataError
from ecellm.records import Row
from ecellm.rows import read_rows
from ecellm.storage.base import Storage, join
from ecellm.tasks.registry import task

Groups = dict[tuple[str, str], list[Row]]
"""(setting, task id) -> rows, in stored order; settings as in the run file, tasks in the paper's order."""


def groups_to_test(run: Run, storage: Storage) -> Groups:
    """The rows to evaluate.

    `evaluate.limit` keeps the rows whose (seed, id) hash lowest, so a sample is drawn in every setting or in none, and
    a larger limit keeps every row of a smaller one. Raises DataError where nothing is left.
    """
    wanted = {(setting, name) for setting in run.evaluate.settings for name in run.evaluate.tasks}
    found: Groups = {}
    for row in read_rows(storage, split="test"):
        name = task(row.task).id
        if (row.setting, name) in wanted:
            found.setdefault((row.setting, name), []).append(row)
    if not found:
        raise DataError(
            f"{join(storage.root, 'rows')}: no test rows to evaluate",
            found="none of the settings and tasks asked for",
            expected=f"{', '.join(run.evaluate.settings)} with {', '.join(run.evaluate.tasks)}",
            mend="run `ecellm build` first, or name other evaluate.settings and evaluate.tasks",
        )
    order = [(setting, name) for setting in run.evaluate.settings for name in run.evaluate.tasks]
    return {key: limited(found[key], run.evaluate.limit, run.seed) for key in order if key in found}


def limited(rows: list[Row], limit: int, seed: int) -> list[Row]:
    """The rows whose (seed, id) hash lowest, as many as the limit says, in their order; 0: all."""
    if not limit or len(rows) <= limit:
        return rows
    keep = set(
        sorted((row.id for row in rows), key=lambda id: hashlib.sha256(f"{seed} {id}".encode()).digest())[:limit]
    )
    return [row for row in rows if row.id in keep]
