"""What the tests of an endpoint and of its parts share: time that nobody waits for, and a model behind an address."""

from __future__ import annotations

import threading
from typing import Any

from ecellm.config.evaluation import Endpoint, NamedModel


class Time:
    """Time that only waiting makes pass."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()
        self._lock = threading.Lock()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.waits.append(seconds)
            self.now += seconds


def model(url: str, **settings: Any) -> NamedModel:
    place = Endpoint(url=url, timeout_s=1, **settings)
    return NamedModel(name="gpt", model="gpt-4", engine="openai", endpoint=place)
