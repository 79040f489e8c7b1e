"""The pool of Ray actors as `ecellm evaluate` uses it, with a clock from when a model is loaded. No benchmark."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence

from ecellm.config.schema import Run
from ecellm.data.encode import Encoder
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.log import Answer
from ecellm.evaluate.plan import units
from ecellm.evaluate.pool import Pool, Worker
from ecellm.evaluate.requests import FREE, Form, Request, request
from ecellm.evaluate.voices import Voice
from ecellm.evaluate.waiting import Queue
from ecellm.model.load import load_tokenizer
from ecellm.prompt import policy_of
from ecellm.session import ray_session
from ecellm.tasks.registry import TASKS
from tests.bench._real import Asked
from tests.bench._sides import SEPARATOR


class Timed(Pool):
    """The pool, with the time from the first unit handed out until the last answer."""

    begun = 0.0

    def _feed(self, worker: Worker) -> None:
        if not self.begun:
            self.begun = time.perf_counter()
        super()._feed(worker)


def two_actors(run: Run) -> Run:
    """Two actors with one thread each, and a log of their own, so that nothing is known."""
    answers = tempfile.mkdtemp(prefix="ecellm-bench-")
    settings = {"workers": 2, "answers": answers}
    return run.model_copy(
        update={
            "cluster": run.cluster.model_copy(update={"workers": 2, "cpus_per_worker": 1}),
            "evaluate": run.evaluate.model_copy(update=settings),
        }
    )


def answered(run: Run, folder: str, asked: Sequence[Request], workers: int = 2) -> tuple[float, list[Answer], Facts]:
    """Seconds, answers in the order of the requests, and what the engine did."""
    voice = Voice(name="bench", digest="bench", separator=SEPARATOR, engine="transformers", folder=folder)
    found: dict[str, Answer] = {}
    todo = units("bench", {one.key: one for one in asked}.values(), workers)

    def keep(name: str, answers: Sequence[Answer]) -> None:
        found.update((answer.key, answer) for answer in answers)

    with ray_session(run, cpus=workers):
        pool = Timed(run, {"bench": voice}, Queue.of(todo), keep, dict)
        try:
            pool.drain(lambda: False)
            seconds = time.perf_counter() - pool.begun
        finally:
            pool.close()
    return seconds, [found[one.key] for one in asked], pool.facts["bench"]


def as_requests(run: Run, folder: str, rows: Sequence[Asked], decoding: str = "greedy") -> list[Request]:
    """The rows' questions; under `choice` with their possible answers."""
    tokenizer = load_tokenizer(folder)
    policy = policy_of(tokenizer, template="alpaca", max_length=run.prepare.max_length, encoder_decoder=False)
    encoder = Encoder(tokenizer, policy, encoder_decoder=False)
    found = []
    for row in rows:
        form = FREE
        if decoding == "choice":
            texts = TASKS[row.task].options(row.row)
            form = Form(options=texts, tokens=tuple(tuple(encoder.option(text)) for text in texts))
        settings = {"model": "bench", "decoding": decoding, "max_new_tokens": row.limit, "seed": 0}
        found.append(request(row.ids, form=form, **settings))  # type: ignore[arg-type]
    return found
