"""Have one model answer every row: what is in its log already is not asked again.

The path of one system, from rows to predictions in the rows' order. Rows with the same prompt share one answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ecellm.config.schema import Run
from ecellm.console import console, note, progress
from ecellm.evaluate.gather import Gather
from ecellm.evaluate.log import Answer, AnswerLog
from ecellm.evaluate.plan import batches
from ecellm.evaluate.pool import answer_all
from ecellm.evaluate.requests import Asked, Request, request
from ecellm.evaluate.rows import Groups
from ecellm.evaluate.systems import System
from ecellm.model.base import placed
from ecellm.records import Prediction
from ecellm.storage.base import Storage
from ecellm.tasks.registry import task

ANSWERS = "answers"
"""Folder under OUT with one log for each system."""


class Tick(Protocol):
    """Told how many rows were answered."""

    def __call__(self, n: int) -> None: ...


def ask(run: Run, storage: Storage, system: System, groups: Groups) -> dict[tuple[str, str], list[Prediction]]:
    """Predictions of a model for every row, grouped as the rows are.

    Raises ClusterError, CheckpointError, StorageError; whatever was answered until then is in the log.
    """
    asked, requests = questions(run, system, groups)
    log = AnswerLog(storage, f"{ANSWERS}/{system.name}")
    known = log.answers()
    gather = Gather(requests)
    gather.add(known[key] for key in requests if key in known)
    missing = [requests[key] for key in sorted(gather.open)]
    n_rows = sum(len(rows) for rows in groups.values())
    note(f"{system.name}: {n_rows:,} rows, {len(requests):,} different prompts, {len(missing):,} to ask")
    with _progress(system.name, len(missing)) as tick:

        def keep(answers: list[Answer]) -> None:
            gather.add(answers)
            log.add(answers)
            tick(len(answers))

        try:
            plan = batches(missing, run.evaluate.batch_tokens)
            answer_all(placed(run), system.name, system.separator, plan, keep)
        finally:
            log.flush()
    return {key: gather.predictions(rows) for key, rows in asked.items()}


def questions(
    run: Run, system: System, groups: Groups
) -> tuple[dict[tuple[str, str], list[Asked]], dict[str, Request]]:
    """What each row asks, and the different requests by key."""
    asked: dict[tuple[str, str], list[Asked]] = {}
    requests: dict[str, Request] = {}
    for (setting, name), rows in groups.items():
        limit = task(name).max_new_tokens
        for row in rows:
            one = request(
                system.encoder.prompt(row),
                model=system.digest,
                decoding=run.evaluate.decoding,
                max_new_tokens=limit,
                seed=run.seed,
            )
            requests.setdefault(one.key, one)
            asked.setdefault((setting, name), []).append(
                Asked(setting=setting, task=name, id=row.id, key=one.key, prompt_sha256=one.prompt_sha256)
            )
    return asked, requests


@contextmanager
def _progress(name: str, total: int) -> Iterator[Tick]:
    """A live display on a screen; a line at every tenth where there is none."""
    if not total:
        yield lambda n: None
        return
    done = 0
    with progress() as display:
        bar: Any = display.add_task(name, total=total, extra="prompts")

        def tick(n: int) -> None:
            nonlocal done
            before, done = done, done + n
            display.advance(bar, n)
            if not console.is_terminal and before * 10 // total != done * 10 // total:
                note(f"{name}: {done:,}/{total:,} prompts")

        yield tick
