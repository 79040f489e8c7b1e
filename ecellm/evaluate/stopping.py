"""A request to stop: SIGTERM and Slurm's SIGUSR1 are remembered, and the work ends at its next look."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecellm.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def stopped() -> Stopped:
    """What is raised then."""
    return Stopped(
        "evaluation stopped on request", found="answers so far are kept",
        mend="run the same command again: it asks only what is missing",
    )  # fmt: skip


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Whether somebody asked to stop, within the block. Only the main thread can take signals; others never hear."""
    heard = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield heard.is_set
        return
    before = {number: signal.signal(number, lambda *_: heard.set()) for number in _SIGNALS}
    try:
        yield heard.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
