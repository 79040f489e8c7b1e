"""A pool of Ray actors that answers units of work from one queue over all models. The only place in it with Ray.

It knows units and answers, no tasks, rows or scores. Actors come as the cluster has room for them and may go at any
time: what a lost one had not answered goes back into the queue, after a look into its part of the log. The one
decision: a loss counts against the run only when nothing was answered since the one before it, or when one unit has
taken several actors with it, and what goes together (a node with all its actors) counts once; a long evaluation on
machines that come and go is no failure.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecellm.config.schema import Run
from ecellm.console import note
from ecellm.errors import ClusterError, EcellmError
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.holder import MEMORY_KEPT, Holder
from ecellm.evaluate.log import Answer, read_log
from ecellm.evaluate.plan import Unit
from ecellm.evaluate.requests import Request
from ecellm.evaluate.stopping import stopped
from ecellm.evaluate.voices import Voice, answers_storage, log_folder
from ecellm.evaluate.waiting import Queue
from ecellm.nodes import code_digest
from ecellm.placement import place
from ecellm.session import ray_session

LOOK_S = 1.0
"""Seconds between looks for a stop, and for room for more actors."""
GROW_S = 10.0
UNIT_STRIKES = 3
"""Losses of a unit that made no progress that count as one."""

OnAnswers = Callable[[str, Sequence[Answer]], None]
"""(voice, answers that came)."""


@dataclass(slots=True, eq=False)
class Worker:
    """One actor: what it holds and what it is working on."""

    actor: Any
    number: int
    """Its place in the order in which actors were started, from 1."""
    writer: str
    placed: Any
    """Reference that is there once a node runs the actor."""
    ready: Any
    """Reference that is there once the actor runs and its first model is loaded; None after that."""
    held: str = ""
    unit: Unit | None = None
    left: dict[str, Request] = field(default_factory=dict)
    """Requests of the unit that are not answered yet."""
    stream: Any = None


def answer_all(
    run: Run,
    voices: Mapping[str, Voice],
    units: Sequence[Unit],
    on_answers: OnAnswers,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Facts]:
    """Have every unit answered; `on_answers` is called as answers come. Returns what the engines did, by voice.

    Raises ClusterError when actors are lost without getting anywhere, Stopped when `stopping` says so, and the
    worker's own error otherwise. Answers until then are in the log.
    """
    if not units:
        return {}
    cpus = run.cluster.cpus_per_worker * max(run.evaluate.workers, run.cluster.workers)
    with ray_session(run, cpus=cpus):
        # Room for one is enough to begin; further actors begin as nodes come.
        pool = Pool(run, voices, Queue.of(units), on_answers, lambda: place(run, "evaluate", 1, stopping))
        try:
            pool.drain(stopping)
        finally:
            pool.close()
        return pool.facts


class Pool:
    """Actors and the queue between them.

    Args:
        find: waits until the cluster has room for an actor, and says on nodes of which labels.
    """

    def __init__(
        self, run: Run, voices: Mapping[str, Voice], queue: Queue, on_answers: OnAnswers,
        find: Callable[[], dict[str, str]],
    ) -> None:  # fmt: skip
        import ray

        self.ray: Any = ray
        self.run, self.voices, self.queue, self.on_answers = run, voices, queue, on_answers
        self.workers: list[Worker] = []
        self.facts: dict[str, Facts] = {}
        self._seen: dict[tuple[str, str], Facts] = {}
        self._run_json, self._code = run.model_dump_json(), code_digest()
        self._find = find
        self._settle()
        self._fruitless = 0
        self._replaced = 0
        """Actors up to this number were there at the last loss that counted."""
        self._strikes: Counter[str] = Counter()
        self._grown = -GROW_S
        self._started = 0

    def _settle(self) -> None:
        """Find the nodes that actors go to from now on."""
        run, selector = self.run, self._find()
        needs: dict[str, Any] = {"num_cpus": run.cluster.cpus_per_worker, "num_gpus": run.cluster.gpus_per_worker}
        # A cluster may lose a whole node: Ray itself brings nothing back, this pool does.
        needs |= {"max_restarts": 0, "label_selector": selector or None, "runtime_env": {"env_vars": MEMORY_KEPT}}
        remote: Any = self.ray.remote(**needs)
        self._holder: Any = remote(Holder)
        self._placed_at = time.monotonic()

    def _move(self) -> None:
        """Where no actor has had a place for long, look for nodes again: the ones of this market may all be gone."""
        now = time.monotonic()
        waiting = [worker.placed for worker in self.workers]
        if not waiting or self.ray.wait(waiting, num_returns=1, timeout=0)[0]:
            self._placed_at = now
        elif now - self._placed_at > self.run.cluster.market_wait_s:
            note(f"no node has had room for {now - self._placed_at:.0f} s: looking for others")
            self.close()
            self._settle()
            self._grown = -GROW_S

    def drain(self, stopping: Callable[[], bool]) -> None:
        """Work until the queue is empty and everything is answered."""
        while len(self.queue) or any(worker.unit for worker in self.workers):
            if stopping():
                raise stopped()
            self._grow()
            self._move()
            waiting = {self._waits_for(worker): worker for worker in self.workers if worker.ready or worker.stream}
            done, _ = self.ray.wait(list(waiting), num_returns=1, timeout=LOOK_S)
            for reference in done:
                self._hear(waiting[reference])

    def close(self) -> None:
        """End the actors."""
        for worker in self.workers:
            self.ray.kill(worker.actor)
        self.workers = []

    def _waits_for(self, worker: Worker) -> Any:
        return worker.ready if worker.stream is None else worker.stream

    def _wanted(self) -> int:
        """Actors to have: as asked for, or one for each GPU that the cluster has now; never more than units."""
        gpus = int(self.ray.cluster_resources().get("GPU", 0)) if self.run.cluster.gpus_per_worker else 0
        busy = sum(1 for worker in self.workers if worker.unit)
        return max(1, min(self.run.evaluate.workers or gpus or self.run.cluster.workers, busy + len(self.queue)))

    def _grow(self) -> None:
        """Start actors where some are missing. Ray places them when the cluster has room; until then they wait."""
        now = time.monotonic()
        if self.workers and now - self._grown < GROW_S:
            return
        self._grown = now
        while len(self.workers) < self._wanted():
            self._started += 1
            writer = f"{uuid.uuid4().hex[:8]}{self._started}-"
            # What is asked for may all be taken by now; a voice with nothing left is then let go again.
            voice = self.queue.heaviest(self._holders()) or next(iter(self.voices))
            actor = self._holder.remote(self._run_json, writer, self._code)
            placed, ready = actor.__ray_ready__.remote(), actor.hold.remote(self.voices[voice])
            self.workers.append(Worker(actor, self._started, writer, placed, ready, held=voice))

    def _holders(self) -> Counter[str]:
        """How many actors hold each voice, or are about to."""
        return Counter(worker.held for worker in self.workers if worker.unit or worker.ready)

    def _feed(self, worker: Worker) -> None:
        unit = self.queue.take(worker.held, self._holders())
        worker.unit, worker.stream = unit, None
        if unit is None:
            self.ray.kill(worker.actor)
            self.workers.remove(worker)
            return
        worker.held, worker.left = unit.model, {request.key: request for request in unit.requests}
        answer = worker.actor.answer.options(num_returns="streaming")
        worker.stream = answer.remote(self.voices[unit.model], unit.requests)

    def _hear(self, worker: Worker) -> None:
        """An actor has started, has answered something, has finished its unit, or is lost."""
        exceptions = self.ray.exceptions
        try:
            if worker.ready is not None:
                self.ray.get(worker.ready)
                worker.ready = None
                self._feed(worker)
                return
            try:
                answers: list[Answer] = self.ray.get(next(worker.stream))
            except StopIteration:
                self._finish(worker)
                return
        except exceptions.RayActorError as fault:
            if (cause := _own(fault)) is not None:
                raise cause from fault
            self._lost(worker, fault)
            return
        except exceptions.RayTaskError as fault:
            raise _own(fault) or _failed(fault) from fault
        except exceptions.RayError as fault:  # what it had said went with its node
            self._lost(worker, fault)
            return
        self._took(worker, answers)

    def _took(self, worker: Worker, answers: Sequence[Answer]) -> None:
        self._fruitless = 0
        for answer in answers:
            worker.left.pop(answer.key, None)
        self.on_answers(worker.held, answers)

    def _finish(self, worker: Worker) -> None:
        if worker.left:
            raise ClusterError(
                f"a worker left {len(worker.left)} requests of its unit unanswered",
                expected="an answer for each", mend="report this with the log; answers so far are kept",
            )  # fmt: skip
        try:
            facts: Facts = self.ray.get(worker.actor.facts.remote())
            self._add(worker, facts)
        except self.ray.exceptions.RayActorError as fault:
            worker.unit = None
            self._lost(worker, fault)
            return
        self._feed(worker)

    def _add(self, worker: Worker, facts: Facts) -> None:
        """An engine's counters begin at 0 when it is loaded, so the highest of each actor are summed."""
        self._seen[worker.held, worker.writer] = facts
        ours = [seen for (held, _), seen in self._seen.items() if held == worker.held]
        self.facts[worker.held] = Facts(
            facts.way, sum(one.prompt_tokens for one in ours), sum(one.computed_tokens for one in ours)
        )

    def _lost(self, worker: Worker, fault: Exception) -> None:
        """Put what a lost actor had not answered back, and see whether this leads anywhere."""
        self.ray.kill(worker.actor)  # one that was out of reach only would answer what others are asked now
        self.workers.remove(worker)
        self._grown = -GROW_S
        unit, most = worker.unit, self.run.cluster.max_failures
        strikes = 0
        if unit is not None:
            voice = self.voices[unit.model]
            # It may have written answers that it had no time to tell of.
            written = read_log(answers_storage(self.run), log_folder(voice, self.run), worker.writer)
            told = [written[key] for key in worker.left if key in written]
            if told:
                self._took(worker, told)
            self.queue.put_back(Unit(unit.model, tuple(worker.left.values())))
            first = min(worker.left, default="")
            self._strikes[first] += 1
            strikes = self._strikes[first]
        if not self._fruitless or worker.number > self._replaced:
            self._fruitless += 1
            self._replaced = self._started
        # A unit that was struck often may be innocent, where everything goes often; one that always kills is not.
        if (strikes := max(strikes // UNIT_STRIKES, self._fruitless)) > most:
            raise ClusterError(
                f"evaluation lost {strikes} workers and got no further",
                found=str(fault).strip().partition("\n")[0],
                expected=f"at most {most} lost workers without an answer between them (cluster.max_failures)",
                mend="give more memory, or lower evaluate.batch_rows, and run again: answers so far are kept",
            ) from fault
        note("a worker was lost: another takes its place and its requests")


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
        "a worker failed while it answered a unit",
        found=lines[-1] if lines else type(fault).__name__,
        expected="answers",
        mend="run again: answers so far are kept; report the failure if it comes back",
    )
