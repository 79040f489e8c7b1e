"""The shipped launcher files under Ray's real autoscaler: room is asked for as stages do, by label; nodes of the right
type come, idle ones go. An actor stands for training; evaluation is `answer_all` with actors that echo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecellm.errors import ClusterError
from ecellm.placement import place, selectors
from tests.cluster.autoscaled import Autoscaled, Echo, evaluated
from tests.cluster.labelled import EVALUATE, EVALUATE_GCP, TRAIN, TRAIN_GCP, kinds, on
from tests.data.made import make_run


def until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@dataclass(frozen=True)
class Shipped:
    """A launcher file, its on-demand types, and the labels that stages ask for."""

    name: str
    train: str
    evaluate: str
    train_labels: dict[str, str]
    evaluate_labels: dict[str, str]


AWS = Shipped("aws.yaml", "train_p4d", "eval_g5", TRAIN, EVALUATE)
GCP = Shipped("gcp.yaml", "train_a3", "eval_g2", TRAIN_GCP, EVALUATE_GCP)


@pytest.fixture(params=[AWS, pytest.param(GCP, marks=pytest.mark.long)], ids=("aws", "gcp"))
def shipped(request: pytest.FixtureRequest) -> Shipped:
    """The file under test."""
    found: Shipped = request.param
    return found


@pytest.fixture
def cluster(shipped: Shipped) -> Iterator[Autoscaled]:
    with Autoscaled(shipped.name, no_capacity=(f"{shipped.evaluate}_spot",)) as head:
        from ecellm.session import quiet_init

        quiet_init(address=head.address)
        yield head
        import ray

        ray.shutdown()


@pytest.mark.heavy
@pytest.mark.timeout(200)
def test_training_and_evaluation_scale_apart(cluster: Autoscaled, shipped: Shipped) -> None:
    """Training gets nodes with a fast network; evaluation finds no spot node and is moved on; idle nodes go."""
    import ray

    train, evaluate = shipped.train_labels, shipped.evaluate_labels
    run = on(
        cluster.address, train_labels=train, evaluate_labels=evaluate, evaluate_markets=("spot", "on-demand"),
        market_wait_s=5,
    )  # fmt: skip
    assert place(run, "train", 8) == train
    assert cluster.happened("created") in ([shipped.train], [f"{shipped.train}_spot"])
    holder = ray.remote(num_cpus=1, num_gpus=8, label_selector=train)(Echo).remote()
    assert ray.get(holder.answer.remote([1])) == [1]
    assert place(run, "evaluate", 1) == evaluate | {"ray.io/market-type": "on-demand"}
    assert cluster.happened("created")[-1] == shipped.evaluate
    assert f"{shipped.evaluate}_spot" in cluster.happened("refused")
    assert len(evaluated(run)) == 1
    until(lambda: kinds() == ["head", "train"], 40)  # evaluation goes to zero, training keeps its own
    assert ray.get(holder.answer.remote([2])) == [2]
    nobody = on(cluster.address, evaluate_labels={"ecellm.io/role": "nobody"}, startup_timeout_s=3)
    with pytest.raises(ClusterError, match=r"no room to evaluate for 3 s(?s:.*)ecellm.io/role=nobody"):
        place(nobody, "evaluate", 1)  # what no type offers is told, and not waited for


def test_markets_are_tried_in_their_order() -> None:
    run = on("x:1", evaluate_markets=("spot", "on-demand"))
    assert [one["ray.io/market-type"] for one in selectors(run, "evaluate")] == ["spot", "on-demand"]
    assert selectors(run, "train") == [TRAIN]


def test_a_ray_of_our_own_has_no_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert place(make_run(str(tmp_path)), "train", 2) == {}
