"""Groups on a cluster of several nodes: one is drained, one dies, one comes back. Real Ray nodes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecellm.checkpoint.restore import steps
from ecellm.config.schema import Run
from ecellm.data.prepare import prepare
from ecellm.errors import EcellmError, Stopped
from ecellm.placement import MARKET
from ecellm.session import staying_places
from ecellm.storage.local import LocalStorage
from ecellm.train import attempts, launch
from ecellm.train.launch import train
from ecellm.train.moves import most_workers
from tests.cluster.head import token
from tests.data.made import make_row, make_run, put_rows

pytestmark = [pytest.mark.long, pytest.mark.heavy, pytest.mark.timeout(600)]
SAVED = 25


def make(out: Path, epochs: int, **train_settings: Any) -> Run:
    settings = {"epochs": epochs, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-4} | train_settings
    cluster = {"workers": 2, "min_workers": 1, "grow_after_s": 1, "max_failures": 3}
    if settings.get("engine") == "plain":
        cluster = {"workers": 1}
    return make_run(str(out), train=settings, checkpoint={"every": SAVED}, cluster=cluster)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without places and two nodes with one each."""
    token()  # Ray keeps the first one that a process showed it, whichever test did
    for name, value in {
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5",
        "RAY_health_check_initial_delay_ms": "0", "OMP_NUM_THREADS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    Path("/tmp/ray").mkdir(exist_ok=True)  # it writes the address there, whatever its own folder is
    with tempfile.TemporaryDirectory(prefix="ec", dir="/tmp") as folder:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.2", "include_dashboard": False,
                            "temp_dir": folder, "object_store_memory": 80 << 20},
        )  # fmt: skip
        cluster.places = {number: add(cluster, number) for number in (1, 2)}
        ray.init(cluster.address, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}}, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def add(cluster: Any, number: int, market: str = "spot") -> Any:
    return cluster.add_node(
        num_cpus=1, node_ip_address=f"127.0.1.{number}", object_store_memory=80 << 20, include_dashboard=False,
        labels={MARKET: market},
    )  # fmt: skip


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[int], Run]:
    def at(epochs: int) -> Run:
        run = make(tmp_path / "out", epochs)
        put_rows(LocalStorage(run.out), [make_row(i) for i in range(32)] + [make_row(i, "val") for i in range(6)])
        prepare(run)
        return run

    return at


class Going:
    """Training in a thread, so that this one can act on nodes (which only the main thread can add)."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: EcellmError | None = None
        self.storage = LocalStorage(run.out)
        self._stop = threading.Event()  # what SIGTERM would set, which only the main thread can take
        monkeypatch.setattr(launch, "_stop_signals", lambda: contextlib.nullcontext(self._stop))
        self._thread = threading.Thread(target=self._train, args=(run,), daemon=True)
        self._thread.start()

    def until(self, what: Callable[[], object], seconds: float = 200) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "waited too long"
            assert self._thread.is_alive(), f"training has ended: {self.error}"
            time.sleep(0.2)

    def newest(self) -> int:
        return max(steps(self.storage)[0], default=0)

    def saved(self, step: int) -> bool:
        return self.newest() >= step

    def attempt(self, number: int) -> bool:
        return attempts.newest(self.storage) >= number

    def stopped(self) -> list[dict[str, Any]]:
        """Ask it to save and stop; what metrics.jsonl holds then."""
        self._stop.set()
        self._thread.join(timeout=300)
        assert not self._thread.is_alive()
        assert isinstance(self.error, Stopped), self.error
        return [json.loads(line) for line in self.storage.read("metrics.jsonl").splitlines()]

    def _train(self, run: Run) -> None:
        try:
            train(run)
        except EcellmError as error:
            self.error = error


def losses_of_a_quiet_run(run: Run, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    import shutil

    quiet = tmp_path / "quiet"
    shutil.copytree(run.out, quiet, ignore=shutil.ignore_patterns("checkpoints", "model", "attempts", "metrics.jsonl"))
    going = Going(make(quiet, run.train.epochs, engine="plain"), monkeypatch)
    going.until(lambda: going.saved(steps))
    return [line["loss"] for line in going.stopped()[:steps]]


def drain(cluster: Any, node: Any) -> None:
    """The notice that a spot node gets."""
    subprocess.run(
        [
            sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address, "--node-id",
            node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
            "--deadline-remaining-seconds", "60",
        ], check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def test_nodes_that_leave_come_and_die(
    nodes: Any, prepared: Callable[[int], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(10_000)  # no machine comes to its end while nodes come: this test says when to stop
    going = Going(run, monkeypatch)
    going.until(lambda: going.saved(2 * SAVED))
    drain(nodes, nodes.places[2])
    assert staying_places(cpus=1, gpus=0) == 1  # so the next group is of one at once, not after a wait for two
    assert most_workers(run, {}) == 1
    going.until(lambda: going.attempt(2))
    nodes.remove_node(nodes.places[2], allow_graceful=False)
    third = add(nodes, 3)
    going.until(lambda: going.attempt(3))
    grown = going.newest()
    going.until(lambda: going.saved(grown + 2 * SAVED))
    nodes.remove_node(third, allow_graceful=False)
    going.until(lambda: going.attempt(4))
    alone = going.newest()
    going.until(lambda: going.saved(alone + 2 * SAVED))
    lines = going.stopped()
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert {line["attempt"]: line["workers"] for line in lines} == {1: 2, 2: 1, 3: 2, 4: 1}
    last = {number: max(line["step"] for line in lines if line["attempt"] == number) for number in (1, 2, 3, 4)}
    history = attempts.history(going.storage)
    # what was saved at a notice, or when asked, is where the next attempt goes on: no step was done twice
    assert [one["reason"] for one in history[:2]] == [f"saved after step {last[number]}" for number in (1, 2)]
    assert history[3]["reason"].startswith(f"stopped after step {last[4]} of")
    # a node that dies costs the steps since the last checkpoint
    assert [one["after"] for one in history] == [0, last[1], last[2], last[3]]
    assert last[3] % SAVED == 0
    wanted = losses_of_a_quiet_run(run, len(lines), tmp_path, monkeypatch)
    assert [line["loss"] for line in lines] == pytest.approx(wanted, rel=1e-3)
    soon = last[1] + 20
    assert [line["loss"] for line in lines[:soon]] == pytest.approx(wanted[:soon], rel=1e-5)


def test_where_spot_nodes_went_without_a_notice_others_are_asked_for(
    nodes: Any, prepared: Callable[[int], Run], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "4")  # as the run would, for this test alone
    add(nodes, 3, "on-demand")
    cluster = {"workers": 1, "min_workers": 0, "train_markets": ("spot", "on-demand"), "market_wait_s": 4}
    run = prepared(10_000)
    run = run.model_copy(update={"cluster": run.cluster.model_copy(update=cluster)})
    going = Going(run, monkeypatch)
    going.until(lambda: going.saved(2 * SAVED))
    for number in (1, 2):
        nodes.remove_node(nodes.places[number], allow_graceful=False)
    going.until(lambda: going.attempt(2))
    left = [node["Labels"].get(MARKET) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    assert left == ["on-demand"]
    second = going.newest()
    going.until(lambda: going.saved(second + 2 * SAVED))
    lines = going.stopped()
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    first, again = attempts.history(going.storage)
    assert (first["after"], again["after"]) == (0, second)
    assert second % SAVED == 0
    assert "no spot nodes for 4 s: asking for on-demand" in capfd.readouterr().err
