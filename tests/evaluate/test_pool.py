"""The pool on a real Ray: a killed actor's batches are answered by another, each request once."""

import os
import signal
from pathlib import Path

import pytest

from ecellm.config.schema import Run
from ecellm.errors import ClusterError
from ecellm.evaluate.log import Answer
from ecellm.evaluate.plan import batches
from ecellm.evaluate.pool import answer_all, pool_size
from ecellm.evaluate.requests import Request, request
from ecellm.model.base import placed


def _requests(n: int) -> list[Request]:
    settings = {"model": "m", "decoding": "greedy", "max_new_tokens": 4, "seed": 1}
    return [request([1, 5 + k, 6, 7], **settings) for k in range(n)]  # type: ignore[arg-type]


def test_pool_size_follows_workers_then_gpus_then_training_workers(run: Run) -> None:
    assert pool_size(run, 0, 9) == 1
    cluster = run.cluster.model_copy(update={"workers": 3, "gpus_per_worker": 1})
    assert pool_size(run.model_copy(update={"cluster": cluster}), 8, 99) == 8
    assert pool_size(run.model_copy(update={"cluster": cluster}), 8, 2) == 2
    chosen = run.evaluate.model_copy(update={"workers": 5})
    assert pool_size(run.model_copy(update={"cluster": cluster, "evaluate": chosen}), 8, 99) == 5


@pytest.mark.heavy
def test_a_killed_actor_is_replaced_and_too_many_end_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecellm.session import ray_session

    asked = _requests(24)
    found: list[Answer] = []

    def keep(answers: list[Answer]) -> None:
        if not found:
            _kill_actors()
        found.extend(answers)

    with ray_session(run, cpus=2):
        answer_all(placed(run), "tuned", "### Response:", batches(asked, 12), keep)
        assert sorted(one.key for one in found) == sorted(one.key for one in asked)
        found.clear()
        strict = run.model_copy(update={"cluster": run.cluster.model_copy(update={"max_failures": 0})})
        with pytest.raises(ClusterError, match="lost 1 workers"):
            answer_all(placed(strict), "tuned", "### Response:", batches(asked, 12), keep)


def _kill_actors() -> None:
    """kill -9 of every process below this one that holds a model."""
    victims = [pid for pid in _below(os.getpid()) if b"ray::Holder" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


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
