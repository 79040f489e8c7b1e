"""A pool of Ray actors, each holding one model, that answers batches from one queue.

It knows batches and answers, no tasks, rows or files. A lost actor's batches go back into the queue and a new actor
takes its place, `cluster.max_failures` times over; a fault inside a batch ends the evaluation with its own error.
Answers reach the caller in any order, each batch once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecellm.config.schema import Run
from ecellm.console import note
from ecellm.errors import ClusterError, EcellmError
from ecellm.evaluate.log import Answer
from ecellm.evaluate.requests import Request
from ecellm.placement import place
from ecellm.session import ray_session

Batch = tuple[Request, ...]
AHEAD = 2
"""Batches that wait at each actor, so that none idles while its answers travel."""


class Holder:
    """What runs in an actor: one model and nothing else. A plain class, so that it can be tried without Ray."""

    def __init__(self, run_json: str, system: str, separator: str) -> None:
        import torch
        import transformers

        from ecellm.evaluate.systems import system_folder
        from ecellm.model.generate import Generator

        run = Run.model_validate_json(run_json)
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        torch.set_num_threads(run.cluster.cpus_per_worker)
        device = "cuda" if run.cluster.gpus_per_worker else "cpu"
        self.generator = Generator(system_folder(system, run), run.model, device, separator=separator)

    def answer(self, batch: Batch) -> list[Answer]:
        """Answers of one batch, in its order."""
        seeds = [request.seed for request in batch if request.seed is not None]
        replies = self.generator.answer(
            [request.prompt_ids for request in batch],
            [request.max_new_tokens for request in batch],
            seeds=seeds if len(seeds) == len(batch) else None,
        )
        return [
            Answer(key=request.key, text=reply.text, tokens=reply.tokens, finish_reason=reply.finish_reason)
            for request, reply in zip(batch, replies, strict=True)
        ]


def pool_size(run: Run, gpus: int, n_batches: int) -> int:
    """Actors to start: `evaluate.workers`, or one for each GPU, or `cluster.workers`; never more than batches."""
    wanted = run.evaluate.workers or (gpus if run.cluster.gpus_per_worker and gpus else run.cluster.workers)
    return max(1, min(wanted, n_batches))


@dataclass(slots=True)
class _Pool:
    """Actors, what each is working on, and what nobody has taken yet."""

    start: Callable[[], Any]
    queue: deque[Batch]
    at_work: dict[Any, tuple[Any, Batch]] = field(default_factory=dict)

    def feed(self, actor: Any) -> None:
        waiting = sum(1 for other, _ in self.at_work.values() if other is actor)
        while self.queue and waiting < AHEAD:
            batch = self.queue.popleft()
            self.at_work[actor.answer.remote(batch)] = (actor, batch)
            waiting += 1

    def replace(self, lost: Any) -> None:
        """Put a lost actor's batches back and start another in its place."""
        note("a worker was lost: another takes its place and its requests")
        for ref in [ref for ref, (actor, _) in self.at_work.items() if actor is lost]:
            self.queue.appendleft(self.at_work.pop(ref)[1])
        self.feed(self.start())


def answer_all(
    run: Run, system: str, separator: str, batches: Sequence[Batch], on_answers: Callable[[list[Answer]], None]
) -> None:
    """Have every batch answered by the model `system`; `on_answers` is called for each as it comes.

    Raises ClusterError when more actors are lost than `cluster.max_failures`, and the worker's own error otherwise.
    """
    if not batches:
        return
    cpus = run.cluster.cpus_per_worker * max(run.evaluate.workers, run.cluster.workers)
    with ray_session(run, cpus=cpus):
        import ray as imported

        ray: Any = imported
        needs = {"num_cpus": run.cluster.cpus_per_worker, "num_gpus": run.cluster.gpus_per_worker}
        # Room for one is enough to begin; further actors begin as nodes come.
        selector = place(run, "evaluate", 1)
        holder: Any = ray.remote(**needs, label_selector=selector or None)(Holder)
        run_json = run.model_dump_json()
        pool = _Pool(lambda: holder.remote(run_json, system, separator), deque(batches))
        for _ in range(pool_size(run, int(ray.cluster_resources().get("GPU", 0)), len(batches))):
            pool.feed(pool.start())
        _drain(ray, pool, run.cluster.max_failures, on_answers)


def _drain(ray: Any, pool: _Pool, max_failures: int, on_answers: Callable[[list[Answer]], None]) -> None:
    failures = 0
    while pool.at_work:
        done, _ = ray.wait(list(pool.at_work), num_returns=1)
        actor, _ = pool.at_work[done[0]]
        try:
            answers: list[Answer] = ray.get(done[0])
        except ray.exceptions.RayActorError as fault:
            cause = _own(fault)
            if cause is not None:
                raise cause from fault
            failures += 1
            if failures > max_failures:
                raise ClusterError(
                    f"evaluation lost {failures} workers",
                    found=str(fault).strip().partition("\n")[0],
                    expected=f"at most {max_failures} lost workers (cluster.max_failures)",
                    mend="give more memory, or lower evaluate.batch_tokens, and run again: answers so far are kept",
                ) from fault
            pool.replace(actor)
            continue
        except ray.exceptions.RayTaskError as fault:
            raise _own(fault) or _failed(fault) from fault
        del pool.at_work[done[0]]
        on_answers(answers)
        pool.feed(actor)


def _own(fault: BaseException) -> EcellmError | None:
    """The project's own error inside one of Ray's, also where it was raised while an actor started."""
    seen: BaseException | None = fault
    while seen is not None:
        if isinstance(seen, EcellmError):
            return seen
        inner = getattr(seen, "cause", None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__
    return None


def _failed(fault: BaseException) -> ClusterError:
    lines = str(fault).strip().splitlines()
    return ClusterError(
        "a worker failed while it answered a batch",
        found=lines[-1] if lines else type(fault).__name__,
        expected="answers",
        mend="out of memory: lower evaluate.batch_tokens; then run again: answers so far are kept",
    )
