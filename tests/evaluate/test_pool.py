"""The pool on a real Ray: a killed actor's requests are answered by another, each once; the queue shares out
voices."""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest

from ecellm.config.schema import Run
from ecellm.errors import ClusterError, Stopped
from ecellm.evaluate.log import Answer, read_log
from ecellm.evaluate.plan import Unit, units
from ecellm.evaluate.pool import Pool, Worker, answer_all
from ecellm.evaluate.requests import Request, request
from ecellm.evaluate.voices import Voice, answers_storage, log_folder
from ecellm.evaluate.waiting import Queue
from ecellm.model.base import placed

VOICES = {
    name: Voice(name=name, digest=name, separator="### Response:", engine="transformers")
    for name in ("tuned", "untuned")
}


def _requests(n: int, model: str = "m") -> list[Request]:
    settings = {"decoding": "greedy", "max_new_tokens": 4, "seed": 1}
    return [request([1, 5 + k % 200, 6 + k // 200, 7], model=model, **settings) for k in range(n)]  # type: ignore[arg-type]


def _apart(name: str, asked: Sequence[Request], rows: int) -> list[Unit]:
    return [Unit(name, tuple(asked[i : i + rows])) for i in range(0, len(asked), rows)]


def test_an_actor_stays_with_its_voice_while_there_is_work_and_then_helps_out() -> None:
    queue = Queue.of([*_apart("tuned", _requests(4), 1), *_apart("untuned", _requests(2), 1)])
    taken = [queue.take("untuned", Counter({"untuned": 1})) for _ in range(3)]
    assert [unit.model for unit in taken if unit] == ["untuned", "untuned", "tuned"]
    assert len(queue) == 3


def test_a_new_actor_goes_where_most_work_is_left_for_those_who_do_it() -> None:
    queue = Queue.of([*_apart("tuned", _requests(3), 1), *_apart("untuned", _requests(2), 1)])
    first = queue.take("", Counter())
    assert first
    assert first.model == "tuned"
    second = queue.take("", Counter({"tuned": 1}))
    assert second
    assert second.model == "untuned"
    assert Queue({}).take("", Counter()) is None


def test_answers_that_went_with_their_node_are_asked_again_and_their_actor_asks_no_more(run: Run) -> None:
    import ray

    [unit] = _apart("tuned", _requests(3), 3)
    pool = Pool(run, VOICES, Queue({}), lambda name, answers: None, dict)
    killed: list[object] = []

    def gone(reference: object) -> None:
        raise ray.exceptions.ObjectLostError("ab" * 28, None, "its node is gone")

    pool.ray = SimpleNamespace(exceptions=ray.exceptions, kill=killed.append, get=gone)
    left = {one.key: one for one in unit.requests}
    worker = Worker("actor", 1, "writer-", None, None, held="tuned", unit=unit, left=left, stream=iter(["reference"]))
    pool.workers.append(worker)
    pool._hear(worker)
    assert killed == ["actor"]
    assert pool.workers == []
    again = pool.queue.take("tuned", Counter())
    assert again
    assert {one.key for one in again.requests} == set(left)


@pytest.mark.heavy
def test_where_all_nodes_of_a_market_are_gone_others_are_looked_for(run: Run) -> None:
    from ecellm.session import ray_session

    run = run.model_copy(update={"cluster": run.cluster.model_copy(update={"market_wait_s": 8})})
    found = chain([{"ray.io/market-type": "spot"}], repeat({}))
    told: list[Answer] = []
    with ray_session(run, cpus=2):
        work = Queue.of(units("tuned", _requests(3), 2))
        pool = Pool(placed(run), VOICES, work, lambda name, answers: told.extend(answers), lambda: next(found))
        pool.drain(lambda: False)
        pool.close()
    assert len(told) == 3, "the first actors had no place for ever"


@pytest.mark.heavy
def test_killed_actors_are_replaced_every_request_is_answered_once_and_a_stop_is_heard(run: Run) -> None:
    from ecellm.session import ray_session

    asked = {"tuned": _requests(300), "untuned": _requests(40, "other")}
    work = [*units("tuned", asked["tuned"], 2), *_apart("untuned", asked["untuned"], 8)]
    found: dict[str, list[Answer]] = {"tuned": [], "untuned": []}
    kills = 0

    def keep(name: str, answers: Sequence[Answer]) -> None:
        nonlocal kills
        found[name].extend(answers)
        if kills < 2:  # more than cluster.max_failures: a loss after progress is none, and all at once are one
            kills += bool(_kill_actors(1 if kills else 99))

    run = run.model_copy(
        update={
            "evaluate": run.evaluate.model_copy(update={"workers": 2}),
            "cluster": run.cluster.model_copy(update={"max_failures": 1}),
        }
    )
    with ray_session(run, cpus=2):
        facts = answer_all(placed(run), VOICES, work, keep)
        assert kills == 2
        for name, requests in asked.items():
            assert sorted(one.key for one in found[name]) == sorted(one.key for one in requests)
            log = read_log(answers_storage(run), log_folder(VOICES[name], run))
            assert log == {one.key: one for one in found[name]}
        assert facts["untuned"].way == "packed"  # a killed actor's own are lost with it

        strict = run.model_copy(update={"cluster": run.cluster.model_copy(update={"max_failures": 0})})
        with pytest.raises(ClusterError, match="lost 1 workers"):
            answer_all(placed(strict), VOICES, _apart("tuned", _requests(24, "third"), 4), _kill_at_once)
        with pytest.raises(Stopped):
            answer_all(placed(run), VOICES, _apart("tuned", _requests(8, "fourth"), 4), keep, lambda: True)


def _kill_at_once(name: str, answers: Sequence[Answer]) -> None:
    _kill_actors()


def _kill_actors(most: int = 99) -> list[int]:
    """kill -9 of processes below this one that hold a model; some may be gone already."""
    victims = [pid for pid in _below(os.getpid()) if b"ray::Holder" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in victims[:most]:
        os.kill(pid, signal.SIGKILL)
    return victims[:most]


def _below(ancestor: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except FileNotFoundError:
                continue  # it has ended since
    found, edge = [], {ancestor}
    while edge:
        edge = {pid for pid, parent in parents.items() if parent in edge}
        found.extend(edge)
    return found
