"""Waiting for a Ray cluster until it has what it was asked to have. By resources and living nodes, never by time alone.

It starts and ends nothing. The one decision: nodes are counted as Ray counts them, by what they can run, so that a node
which answers but has no CPU to give is not taken for one that is ready.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from ecellm.errors import ClusterError

PAUSE_S = 0.3


def wait_ready(address: str, *, nodes: int, cpus: int, gpus: int, seconds: float) -> None:
    """Return when `nodes` living nodes offer `cpus` and `gpus` together.

    Raises:
        ClusterError: that is not so after `seconds`, or the head does not answer.
    """
    deadline = time.monotonic() + seconds
    _until_open(address, deadline, seconds)
    import ray

    from ecellm.session import quiet_init

    quiet_init(address=address)
    try:
        while True:
            every: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
            alive = [node for node in every if node["Alive"]]
            have = {kind: sum(node["Resources"].get(kind, 0) for node in alive) for kind in ("CPU", "GPU")}
            if len(alive) >= nodes and have["CPU"] >= cpus and have["GPU"] >= gpus:
                return
            if time.monotonic() > deadline:
                raise _late(alive, have, nodes, cpus, gpus, seconds)
            time.sleep(PAUSE_S)
    finally:
        ray.shutdown()


def _until_open(address: str, deadline: float, seconds: float) -> None:
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
        except OSError as trouble:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"no Ray head answers at {address} after {seconds:.0f} s", found=str(trouble),
                    expected="an open port", mend="look at the head's log; check that nodes may reach each other",
                ) from trouble  # fmt: skip
            time.sleep(PAUSE_S)
        else:
            return


def _late(alive: list[Any], have: dict[str, float], nodes: int, cpus: int, gpus: int, seconds: float) -> ClusterError:
    there = ", ".join(sorted(str(node["NodeManagerAddress"]) for node in alive)) or "none"
    return ClusterError(
        f"the cluster is not whole after {seconds:.0f} s: {len(alive)} of {nodes} nodes",
        found=f"nodes {there}; {have['CPU']:g} CPUs, {have['GPU']:g} GPUs",
        expected=f"{nodes} nodes with {cpus} CPUs and {gpus} GPUs together",
        mend="look at the logs of the missing nodes; give a slow file system more time with ECELLM_START_S",
    )
