"""Trying again: only what is known to pass, with growing pauses of random length. No client library here.

Full jitter (the pause is uniform between 0 and a doubling bound) keeps a thousand workers that failed together from
coming back together. A refusal (403) or an absence (404) is an answer, not a fault, and is never tried again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

PASSING = frozenset(
    {
        "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
        "BandwidthLimitExceeded",
        "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestTimeTooSkewed", "OperationAborted",
        "ConditionalRequestConflict", "429", "500", "502", "503", "504",
    }
)  # fmt: skip
"""S3 error codes (and statuses, where a reply has no code) that can pass by themselves."""

T = TypeVar("T")


class Retry:
    """At most `attempts` tries, with pauses of 0 to 0.2, 0.4, 0.8 … at most 10 seconds between them."""

    def __init__(self, attempts: int, *, sleep: Callable[[float], None] = time.sleep, first: float = 0.2) -> None:
        self.attempts, self._sleep, self._first = attempts, sleep, first
        self._random = random.Random()  # not seeded: workers that failed together must not pause alike

    def pause(self, failures: int) -> None:
        """Wait before the try that follows `failures` failed ones."""
        self._sleep(self._random.uniform(0, min(10.0, self._first * 2 ** (failures - 1))))

    @staticmethod
    def once_more(call: Callable[[], T], passes: Callable[[Exception], bool]) -> T:
        """The call's result, at the second try where `passes` says so of the first one; no pause between them."""
        try:
            return call()
        except Exception as trouble:
            if not passes(trouble):
                raise
        return call()

    def __call__(self, call: Callable[[], T], passes: Callable[[Exception], bool]) -> T:
        """The call's result. What `passes` says will pass is tried again; all else, and the last, is raised."""
        failures = 0
        while True:
            try:
                return call()
            except Exception as trouble:
                failures += 1
                if failures >= self.attempts or not passes(trouble):
                    raise
                self.pause(failures)
