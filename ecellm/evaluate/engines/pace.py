"""How fast an endpoint may be asked, and how long to wait before it is asked again. Time and chance are handed in."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
_MOST_REFUSALS = 8
"""More of them make no wait longer."""


class Pace:
    """Requests and tokens a minute, shared by all threads. A limit of 0 is none.

    An endpoint that says it is asked too fast is left alone by all of them, longer each time that it says so again.
    """

    def __init__(
        self,
        requests_per_minute: int,
        tokens_per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        draw: random.Random | None = None,
    ) -> None:
        self._seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._sleep, self._draw = clock, sleep, draw or random.Random()
        self._lock = threading.Lock()
        self._free_at = self._held_until = clock()
        self._refusals = 0
        self._refused_since: float | None = None

    def wait(self, tokens: int) -> None:
        """Return when a request with so many tokens may be sent."""
        needs = max(self._seconds_per_request, tokens * self._seconds_per_token)
        while True:
            with self._lock:
                now, hold = self._clock(), self._held_until
                begin = max(now, hold, self._free_at)
                self._free_at = begin + needs
                if hold > now and not needs:  # without a pace of their own they would all come back at once
                    begin += self._draw.random() * FIRST_WAIT_S
            while (ahead := begin - self._clock()) > 0 and hold == self._held_until:
                self._sleep(ahead)
            if hold == self._held_until:
                return

    def refused(self, told: float | None) -> float:
        """The endpoint was asked too fast: hold everybody back. Returns for how many seconds it has said only that."""
        with self._lock:
            now = self._clock()
            if self._refused_since is None:
                self._refused_since = now
            if now >= self._held_until:  # those that were refused together count once
                self._refusals = min(_MOST_REFUSALS, self._refusals + 1)
            held = now + wait_before(max(1, self._refusals), told, self._draw)
            self._held_until = max(self._held_until, held)
            self._free_at = self._held_until  # whoever waits takes a new turn behind it
            return now - self._refused_since

    def accepted(self) -> None:
        """The endpoint has taken a request: the next hold is shorter."""
        with self._lock:
            self._refused_since = None
            self._refusals = max(0, self._refusals - 1)


def wait_before(attempt: int, told: float | None, draw: random.Random) -> float:
    """Seconds to wait after the attempt of this number, from 1: what the server said, else doubling, with full jitter.

    Jitter keeps those who were refused together from coming back together.
    """
    if told is not None:
        return min(told, LONGEST_WAIT_S) + draw.random() * FIRST_WAIT_S
    return float(draw.uniform(0.1, 1.0) * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)))
