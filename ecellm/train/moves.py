"""When a group should move, and how many workers the next one has: what the driver sees of the cluster's nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ecellm.config.schema import Run
from ecellm.session import draining_nodes, free_places, staying_places
from ecellm.train.board import Snapshot

RAY_SEES_S = 22.0
"""Ray Train sizes a group by a list of nodes up to 20 s old: a group that starts earlier misses the room."""
_LOOK_S = 2.0
"""Seconds between two looks at the cluster's nodes."""


def most_workers(run: Run, labels: Mapping[str, str]) -> int:
    """Workers of the next group on nodes of these labels: Ray would count a place on a node that is leaving, and wait
    for it in vain.
    """
    cluster = run.cluster
    if not cluster.min_workers or not draining_nodes():
        return cluster.workers
    staying = staying_places(cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker, labels=labels)
    return max(cluster.min_workers, min(cluster.workers, staying))


class Nodes:
    """Looks at the cluster's nodes every few seconds, for reasons to save and go on elsewhere.

    Args:
        labels: what nodes must have for the group to use them.
        told: the attempt that need not move any more.
    """

    def __init__(self, run: Run, labels: Mapping[str, str], told: int = 0) -> None:
        self._run, self._labels = run, labels
        self._looked = time.monotonic()
        self._open_since: float | None = None
        self._told = told

    def reason_to_move(self, snapshot: Snapshot) -> str:
        """Why the group should move; empty where it need not. Said once for each attempt."""
        now = time.monotonic()
        running = snapshot.attempt and snapshot.status.step and snapshot.attempt != self._told and not snapshot.moved
        if not running or now - self._looked < _LOOK_S:
            return ""
        self._looked = now
        reason = self._leaving(snapshot) or self._room(snapshot, now)
        if reason:
            self._told, self._open_since = snapshot.attempt, None
        return reason

    def _leaving(self, snapshot: Snapshot) -> str:
        going = sorted(snapshot.nodes & set(draining_nodes()))
        return f"node {', '.join(node[:8] for node in going)} is about to be taken away" if going else ""

    def _room(self, snapshot: Snapshot, now: float) -> str:
        cluster = self._run.cluster
        if not cluster.min_workers or snapshot.workers >= cluster.workers:
            return ""
        free = free_places(cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker, labels=self._labels)
        if not free:
            self._open_since = None
            return ""
        self._open_since = self._open_since or now
        if now - self._open_since < max(cluster.grow_after_s, RAY_SEES_S):
            return ""
        return f"there is room for {min(cluster.workers, snapshot.workers + free)} workers, not {snapshot.workers}"
