"""How fast an endpoint may be asked, and how long to wait before it is asked again. Time and chance are handed in."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0


class Pace:
    """Requests and tokens a minute, shared by all threads. A limit of 0 is none."""

    def __init__(
        self,
        requests_per_minute: int,
        tokens_per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def wait(self, tokens: int) -> None:
        """Return when a request with so many tokens may be sent."""
        needs = max(self._seconds_per_request, tokens * self._seconds_per_token)
        if not needs:
            return
        with self._lock:
            begin = max(self._clock(), self._free_at)
            self._free_at = begin + needs
        if (ahead := begin - self._clock()) > 0:
            self._sleep(ahead)


def wait_before(attempt: int, told: float | None, draw: random.Random) -> float:
    """Seconds to wait after the attempt of this number, from 1: what the server said, else doubling, with full jitter.

    Jitter keeps those who were refused together from coming back together.
    """
    if told is not None:
        return min(told, LONGEST_WAIT_S) + draw.random() * FIRST_WAIT_S
    return float(draw.uniform(0.1, 1.0) * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)))
