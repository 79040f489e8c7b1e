"""A small process on each spot node: it asks the cloud every few seconds, and drains the node when it is to go.

Nothing in Ray asks for the cloud's notice. A drained node takes no new work, and training hears of it through Ray and
saves. The one decision: the watch asks until it is heard. A head that does not answer is asked again, since the machine
goes whether or not the first request arrived.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from ecellm.cluster.notices import NoService, Notice
from ecellm.errors import ClusterError

PERIOD_S = 5.0
"""AWS asks for this period: a notice is at most so much older than it need be."""
_DRAIN_S = 20.0
"""One try at a head that may hang."""


class Service(Protocol):
    """What can be asked for a notice."""

    def notice(self) -> Notice | None:
        """The notice, if there is one. Raises NoService."""


def watch(
    service: Service,
    drain: Callable[[Notice], bool],
    *,
    period: float = PERIOD_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda text: None,
) -> Notice:
    """Ask until a notice comes, then drain in the seconds that are left, until it is accepted. Returns the notice."""
    silent = 0
    while True:
        try:
            notice = service.notice()
            silent = 0
        except NoService as trouble:
            silent += 1
            if silent in (3, 30):  # told, and asked on: a metadata service may restart
                say(f"no answer, {silent} times: {trouble}")
            notice = None
        if notice is not None:
            break
        sleep(period)
    say(f"this machine goes in {notice.seconds} s ({notice.reason}): draining its Ray node")
    end = clock() + notice.seconds
    while not drain(replace(notice, seconds=max(1, round(end - clock())))):
        sleep(min(period, 1.0))
    say("drained")
    return notice


def node_id(address: str, patience: float = 300.0) -> str:
    """This machine's node of the cluster, as hex; Ray may start after the watch does.

    Raises ClusterError where none runs here for `patience` seconds.
    """
    end = time.monotonic() + patience
    while True:
        try:
            return _node_id(address)
        except ClusterError:
            if time.monotonic() > end:
                raise
            time.sleep(PERIOD_S)


def _node_id(address: str) -> str:
    from ecellm.session import quiet_init

    try:
        import ray

        quiet_init(address=address or "auto")
        found = str(ray.get_runtime_context().get_node_id())
        ray.shutdown()
    except (ConnectionError, OSError, RuntimeError, ValueError) as trouble:
        raise ClusterError(
            "no Ray node runs on this machine", found=(str(trouble).strip().splitlines() or [""])[0],
            expected="a node that `ray start` has joined",
            mend="start the watch after Ray, with the cluster's RAY_AUTH_TOKEN",
        ) from trouble  # fmt: skip
    return found


def drainer(address: str, node: str, say: Callable[[str], None]) -> Callable[[Notice], bool]:
    """What drains a node through the head; True when it was accepted."""

    def drain(notice: Notice) -> bool:
        words = [
            sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address, "--node-id", node,
            "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", notice.reason,
            "--deadline-remaining-seconds", str(notice.seconds),
        ]  # fmt: skip
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_DRAIN_S)
        except subprocess.TimeoutExpired:
            say(f"not drained yet: no answer for {_DRAIN_S:g} s")
            return False
        if done.returncode:
            say(f"not drained yet: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return done.returncode == 0

    return drain
