"""Have every system answer every row, as one queue: what is in a log already is not asked again.

The path from rows to predictions in the rows' order. Systems that speak through one voice share its log, so equal
questions are asked once. Models of this run go through the pool; endpoints are asked from the driver meanwhile, where
the keys are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from ecellm.config.schema import Run
from ecellm.console import console, note, progress
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.engines.budget import dollars
from ecellm.evaluate.gather import Gather
from ecellm.evaluate.holder import Holder
from ecellm.evaluate.log import UNANSWERED, Answer, read_log
from ecellm.evaluate.plan import Unit, cost, saved_share, units
from ecellm.evaluate.pool import answer_all
from ecellm.evaluate.requests import Asked, Request, request
from ecellm.evaluate.rows import Groups
from ecellm.evaluate.systems import System
from ecellm.evaluate.voices import Voice, answers_storage, log_folder, named_model
from ecellm.model.base import placed
from ecellm.records import Prediction
from ecellm.tasks.registry import task

LIKELY_GPUS = 8
"""Workers that units are cut for where there will be as many as the cluster has GPUs, which grow and shrink."""
Predictions = dict[tuple[str, str], list[Prediction]]
"""(setting, task id) -> predictions in the rows' order."""


@dataclass(slots=True)
class Talk:
    """All that is asked of one voice."""

    voice: Voice
    requests: dict[str, Request] = field(default_factory=dict)
    asked: dict[str, dict[tuple[str, str], list[Asked]]] = field(default_factory=dict)
    """By system, then as the rows are grouped."""
    gather: Gather | None = None
    unanswered: list[Answer] = field(default_factory=list)
    """Bills of an endpoint's tries that led to no answer."""
    seconds: float = 0.0

    def take(self, answers: Sequence[Answer]) -> list[Answer]:
        """Keep answers, and bills of what has none. Returns the answers."""
        assert self.gather is not None
        came = [answer for answer in answers if answer.finish_reason != UNANSWERED]
        self.gather.add(came)
        self.unanswered += [answer for answer in answers if answer.finish_reason == UNANSWERED]
        return came

    def missing(self) -> list[Request]:
        """Requests that nobody has answered yet."""
        assert self.gather is not None
        return [self.requests[key] for key in sorted(self.gather.open)]


def ask(
    run: Run, systems: Sequence[System], groups: Groups, stopping: Callable[[], bool] = lambda: False
) -> tuple[dict[str, Predictions], dict[str, dict[str, Any]]]:
    """Predictions of every system for every row, and what each voice did (prompts, tokens, seconds, bill).

    Raises ClusterError, CheckpointError, ConfigError, StorageError, Stopped; what was answered until then is kept.
    """
    talks = questions(run, systems, groups)
    likely = LIKELY_GPUS if run.cluster.gpus_per_worker else 1
    workers = run.evaluate.workers or max(run.cluster.workers, likely)
    here: list[Unit] = []
    for name, talk in talks.items():
        known = read_log(answers_storage(run), log_folder(talk.voice, run))
        talk.gather = Gather(talk.requests)
        talk.take([answer for key, answer in known.items() if key.partition("/")[0] in talk.requests])
        here.extend(units(name, talk.missing(), workers))
        note(_plan(name, talk))
    done: dict[str, Facts] = {}
    todo = {unit.model: sum(1 for _ in talks[unit.model].missing()) for unit in here}
    with _progress(todo, sum(unit.cost for unit in here)) as tick:
        lock = threading.Lock()

        def keep(name: str, answers: Sequence[Answer]) -> None:
            with lock:
                talk = talks[name]
                came = talk.take(answers)
                tick(len(came), sum(cost(talk.requests[answer.key]) for answer in came))

        done = _answered(placed(run), {name: talk.voice for name, talk in talks.items()}, here, keep, stopping)
    found: dict[str, Predictions] = {}
    for talk in talks.values():
        assert talk.gather is not None
        for name, groups_asked in talk.asked.items():
            found[name] = {key: talk.gather.predictions(rows) for key, rows in groups_asked.items()}
    return found, {name: _facts(run, talk, done.get(name)) for name, talk in talks.items()}


def questions(run: Run, systems: Sequence[System], groups: Groups) -> dict[str, Talk]:
    """What each row asks of each system, by voice."""
    talks: dict[str, Talk] = {}
    for system in systems:
        talk = talks.setdefault(system.voice.name, Talk(system.voice))
        mine = talk.asked.setdefault(system.name, {})
        for (setting, name), rows in groups.items():
            if not system.covers(name):
                continue
            limit = max(task(name).max_new_tokens, system.least_new_tokens)
            for row in rows:
                decoding, form = system.form(row)
                one = request(
                    system.prompt(row), model=system.voice.digest, decoding=decoding, max_new_tokens=limit,
                    seed=run.seed, form=form,
                )  # fmt: skip
                talk.requests.setdefault(one.key, one)
                mine.setdefault((setting, name), []).append(
                    Asked(
                        setting=setting, task=name, id=row.id, key=one.key, prompt_sha256=one.prompt_sha256,
                        decoding=decoding, end=system.end,
                    )
                )  # fmt: skip
    return talks


def _answered(
    run: Run,
    voices: dict[str, Voice],
    here: list[Unit],
    keep: Callable[[str, Sequence[Answer]], None],
    stopping: Callable[[], bool],
) -> dict[str, Facts]:
    """Have the units answered: by the pool, and those of endpoints in threads beside it."""
    away = {name: voice for name, voice in voices.items() if voice.engine == "openai"}
    over = threading.Event()
    found: dict[str, Facts] = {}

    def talk_to(name: str) -> None:
        holder = Holder(run.model_dump_json(), "", stopping=lambda: over.is_set() or stopping())
        requests = tuple(request for unit in here if unit.model == name for request in unit.requests)
        for answers in holder.answer(away[name], requests):
            keep(name, answers)
        found[name] = holder.facts()

    with ThreadPoolExecutor(max_workers=max(1, len(away))) as threads:
        talks = [threads.submit(talk_to, name) for name in away if any(unit.model == name for unit in here)]
        try:
            found |= answer_all(run, voices, [unit for unit in here if unit.model not in away], keep, stopping)
            wait(talks)
        except BaseException:  # Ctrl-C too: what endpoints have under way is still taken in
            over.set()
            raise
        for one in talks:
            one.result()
    return found


def _plan(name: str, talk: Talk) -> str:
    missing = talk.missing()
    rows = sum(len(group) for groups in talk.asked.values() for group in groups.values())
    text = f"{name}: {rows:,} rows, {len(talk.requests):,} different prompts, {len(missing):,} to ask"
    if missing and talk.voice.engine == "transformers":
        text += f", {saved_share(missing):.0%} of their tokens shared"
    return text


def _facts(run: Run, talk: Talk, done: Facts | None) -> dict[str, Any]:
    """What a voice did in this command, and its whole bill over all commands."""
    found: dict[str, Any] = {"requests": len(talk.requests), "model": talk.voice.digest}
    if done is not None:
        found |= asdict(done)
        if done.prompt_tokens:
            found["saved_share"] = round(1 - done.computed_tokens / done.prompt_tokens, 4)
    assert talk.gather is not None
    bills = [answer.bill for answer in (*talk.gather.found.values(), *talk.unanswered) if answer.bill]
    if bills:
        bill = found["bill"] = {name: sum(bill[name] for bill in bills) for name in bills[0]}
        place = named_model(talk.voice.name, run).endpoint
        found["dollars"] = dollars(place, bill["prompt_tokens"], bill["answer_tokens"])
    return found


@contextmanager
def _progress(todo: dict[str, int], work: float) -> Iterator[Callable[[int, float], None]]:
    """A live display on a screen; a line at every tenth where there is none. Time left is by estimated work."""
    total = sum(todo.values())
    if not total:
        yield lambda n, cost: None
        return
    done, spent, begun = 0, 0.0, time.monotonic()
    with progress() as display:
        bar: Any = display.add_task(" + ".join(todo), total=total, extra="prompts")

        def tick(n: int, cost: float) -> None:
            nonlocal done, spent
            before, done, spent = done, done + n, spent + cost
            minutes = (time.monotonic() - begun) / 60 * max(0.0, work / max(spent, 1e-9) - 1)
            left = f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
            display.update(bar, completed=done, extra=f"prompts, {left}")
            if not console.is_terminal and before * 10 // total != done * 10 // total:
                note(f"{' + '.join(todo)}: {done:,}/{total:,} prompts, {left if done < total else 'done'}")

        yield tick
