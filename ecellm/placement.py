"""Where on a cluster a stage may run: nodes by label, a market for which there is room, a deadline.

It reserves nothing for long: room is asked for as a placement group, which makes an autoscaler add nodes, and given
back as soon as it is there. The one decision: the way from spot to on-demand nodes is ours. Ray's autoscaler scores a
type of node down only where a launch times out, and EC2 refuses at once, so by itself it would ask for spot for ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ecellm.config.schema import Run
from ecellm.console import note
from ecellm.errors import ClusterError, Stopped

MARKET = "ray.io/market-type"
"""Ray's own label for spot and on-demand nodes."""
Role = Literal["train", "evaluate"]


def selectors(run: Run, role: Role) -> list[dict[str, str]]:
    """Label selectors in the order in which they are tried; one that is empty takes any node."""
    labels = dict(getattr(run.cluster, f"{role}_labels"))
    markets = getattr(run.cluster, f"{role}_markets")
    return [labels | {MARKET: market} for market in markets] or [labels]


def bundle(run: Run) -> dict[str, float]:
    """What one worker needs, as Ray counts it."""
    gpus: dict[str, float] = {"GPU": run.cluster.gpus_per_worker} if run.cluster.gpus_per_worker else {}
    return {"CPU": run.cluster.cpus_per_worker, **gpus}


def place(run: Run, role: Role, workers: int, stopped: Callable[[], bool] = lambda: False) -> dict[str, str]:
    """The first selector for which the cluster has, or makes, room for `workers` at once.

    Call it with Ray connected. On a Ray of our own there is nothing to choose.

    Raises:
        ClusterError: no room for any of them within `cluster.startup_timeout_s`, all markets together.
        Stopped: `stopped` became true while it waited.
    """
    if not (run.cluster.address or os.environ.get("RAY_ADDRESS")):
        return {}
    tried = selectors(run, role)
    deadline = time.monotonic() + run.cluster.startup_timeout_s
    for number, selector in enumerate(tried):
        last = number == len(tried) - 1
        left = max(1.0, deadline - time.monotonic())
        seconds = left if last else min(left, float(run.cluster.market_wait_s))
        if _room(bundle(run), selector, workers, seconds, stopped):
            return selector
        if not last:
            note(f"no {selector[MARKET]} nodes for {seconds:.0f} s: asking for {tried[number + 1][MARKET]}")
    raise _nowhere(run, role, tried, workers)


def _room(
    need: dict[str, float], selector: dict[str, str], workers: int, seconds: float, stopped: Callable[[], bool]
) -> bool:
    from ray.util.placement_group import placement_group, remove_placement_group

    words: dict[str, Any] = {"bundle_label_selector": [selector] * workers} if selector else {}
    group = placement_group([need] * workers, strategy="PACK", **words)
    deadline = time.monotonic() + seconds
    try:
        while not group.wait(timeout_seconds=min(1.0, seconds)):
            if stopped():
                raise Stopped("stopped while waiting for nodes, nothing was begun", mend="run the same command again")
            if time.monotonic() > deadline:
                return False
        return True
    finally:
        remove_placement_group(group)


def _nowhere(run: Run, role: Role, tried: Sequence[dict[str, str]], workers: int) -> ClusterError:
    import ray

    every: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in every if node["Alive"]]
    there = {kind: sum(node["Resources"].get(kind, 0) for node in alive) for kind in ("CPU", "GPU")}
    wanted = " or ".join(",".join(f"{key}={value}" for key, value in one.items()) or "any label" for one in tried)
    cluster = run.cluster
    return ClusterError(
        f"no room to {role} for {cluster.startup_timeout_s} s",
        found=f"{len(alive)} nodes with {there['CPU']:g} CPUs and {there['GPU']:g} GPUs, some of them in use",
        expected=f"{workers} x ({cluster.cpus_per_worker} CPU, {cluster.gpus_per_worker} GPU) on nodes of {wanted}",
        mend=f"add nodes of these labels, change cluster.{role}_labels, or wait longer with cluster.startup_timeout_s",
    )
