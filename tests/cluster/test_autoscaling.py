"""The shipped AWS file under Ray's real autoscaler: stages ask by label, nodes of the right type come, idle ones go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecellm.errors import ClusterError
from ecellm.placement import place, selectors
from tests.cluster.autoscaled import Autoscaled
from tests.data.made import make_run

TRAIN = {"ecellm.io/role": "train", "ecellm.io/network": "efa", "ray.io/accelerator-type": "A100"}
EVALUATE = {"ecellm.io/role": "evaluate", "ray.io/accelerator-type": "A10G"}


def on(address: str, **cluster: Any) -> Any:
    """A run that wants GPUs by label on a cluster."""
    settings = {
        "address": address, "gpus_per_worker": 1, "startup_timeout_s": 60, "train_labels": TRAIN,
        "evaluate_labels": EVALUATE, **cluster,
    }  # fmt: skip
    return make_run("unused", cluster=settings)


def until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def kinds() -> list[str]:
    """Roles of the living nodes."""
    import ray

    nodes: list[Any] = ray.nodes()
    return sorted(node["Labels"].get("ecellm.io/role", "") for node in nodes if node["Alive"])


@pytest.fixture
def cluster() -> Iterator[Autoscaled]:
    with Autoscaled("aws.yaml", no_capacity=("eval_g5_spot",)) as head:
        from ecellm.session import quiet_init

        quiet_init(address=head.address)
        yield head
        import ray

        ray.shutdown()


@pytest.mark.heavy
@pytest.mark.timeout(200)
def test_training_and_evaluation_scale_apart(cluster: Autoscaled) -> None:
    """Training gets nodes with a fast network; evaluation finds no spot node and is moved on; idle nodes go."""
    import ray

    run = on(cluster.address, evaluate_markets=("spot", "on-demand"), market_wait_s=5)
    assert place(run, "train", 8) == TRAIN
    assert cluster.happened("created") in (["train_p4d"], ["train_p4d_spot"])
    holder = ray.remote(num_cpus=1, num_gpus=8, label_selector=TRAIN)(_Holder).remote()
    assert ray.get(holder.ping.remote()) == "here"
    assert place(run, "evaluate", 1) == EVALUATE | {"ray.io/market-type": "on-demand"}
    assert cluster.happened("created")[-1] == "eval_g5"
    assert "eval_g5_spot" in cluster.happened("refused")
    until(lambda: kinds() == ["head", "train"], 40)  # evaluation goes to zero, training keeps its own
    assert ray.get(holder.ping.remote()) == "here"


class _Holder:
    def ping(self) -> str:
        return "here"


@pytest.mark.heavy
@pytest.mark.timeout(100)
def test_what_no_type_offers_is_told_and_not_waited_for(cluster: Autoscaled) -> None:
    run = on(cluster.address, evaluate_labels={"ecellm.io/role": "nobody"}, startup_timeout_s=3)
    with pytest.raises(ClusterError, match=r"no room to evaluate for 3 s(?s:.*)ecellm.io/role=nobody"):
        place(run, "evaluate", 1)


def test_markets_are_tried_in_their_order() -> None:
    run = on("x:1", evaluate_markets=("spot", "on-demand"))
    assert [one["ray.io/market-type"] for one in selectors(run, "evaluate")] == ["spot", "on-demand"]
    assert selectors(run, "train") == [TRAIN]


def test_a_ray_of_our_own_has_no_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert place(make_run(str(tmp_path)), "train", 2) == {}
