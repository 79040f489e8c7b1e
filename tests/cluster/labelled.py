"""Runs that ask for nodes by label, and who is there. For the test and the benchmark of autoscaling."""

from __future__ import annotations

from typing import Any

from ecellm.config.schema import Run
from tests.data.made import make_run

TRAIN = {"ecellm.io/role": "train", "ecellm.io/network": "efa", "ray.io/accelerator-type": "A100"}
EVALUATE = {"ecellm.io/role": "evaluate", "ray.io/accelerator-type": "A10G"}
TRAIN_GCP = {"ecellm.io/role": "train", "ray.io/accelerator-type": "H100"}
EVALUATE_GCP = {"ecellm.io/role": "evaluate", "ray.io/accelerator-type": "L4"}


def on(address: str, **cluster: Any) -> Run:
    """A run that wants GPUs by label on a cluster."""
    settings = {
        "address": address, "gpus_per_worker": 1, "startup_timeout_s": 60, "train_labels": TRAIN,
        "evaluate_labels": EVALUATE, **cluster,
    }  # fmt: skip
    return make_run("unused", cluster=settings)


def kinds() -> list[str]:
    """Roles of the living nodes."""
    import ray

    nodes: list[Any] = ray.nodes()
    return sorted(node["Labels"].get("ecellm.io/role", "") for node in nodes if node["Alive"])
