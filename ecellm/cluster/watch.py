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
from typing import Protocol

from ecellm.cluster.notices import NoService, Notice
from ecellm.errors import ClusterError

PERIOD_S = 5.0
"""AWS asks for this period: a notice is at most so much older than it need be."""


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
    say: Callable[[str], None] = lambda text: None,
) -> Notice:
    """Ask until a notice comes, then drain until that is accepted. Returns the notice."""
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
    while not drain(notice):
        sleep(min(period, 1.0))
    say("drained")
    return notice


def node_id(address: str) -> str:
    """This machine's node of the cluster, as hex. Raises ClusterError where none runs here."""
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
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            say(f"not drained yet: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return done.returncode == 0

    return drain
