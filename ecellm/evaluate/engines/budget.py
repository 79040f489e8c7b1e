"""What a model behind an endpoint costs, and its limit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ecellm.config.evaluation import Endpoint, NamedModel
from ecellm.errors import ConfigError
from ecellm.evaluate.stopping import stopped

LOOK_S = 1.0
"""Seconds between looks for a halt."""


def dollars(place: Endpoint, prompt_tokens: float, answer_tokens: float) -> float:
    """What so many tokens cost."""
    return (prompt_tokens * place.usd_per_million_prompt + answer_tokens * place.usd_per_million_answer) / 1e6


class Budget:
    """Keeps a bill within `endpoint.budget_usd`: what is under way counts with its estimate.

    Args:
        spent: US dollars that were billed before.
        halted: set when nothing more is to be sent.
    """

    def __init__(self, model: NamedModel, spent: float, halted: threading.Event) -> None:
        self.spent, self._due, self._under_way = spent, 0.0, 0  # sums of floats do not come back to 0, counts do
        self._model, self._halted = model, halted
        self._changed = threading.Condition()

    def spend(self, cost: float) -> None:
        """Add to the bill."""
        with self._changed:
            self.spent += cost

    @contextmanager
    def room(self, cost: float) -> Iterator[None]:
        """Room for what a try may cost, until its bill is known; waits for the bills of others.

        Raises ConfigError where there is none, Stopped when nothing more is to be sent.
        """
        limit = self._model.endpoint.budget_usd
        with self._changed:
            while limit and self._under_way and self.spent + self._due + cost > limit and not self._halted.is_set():
                self._changed.wait(LOOK_S)
            if self._halted.is_set():
                raise stopped()
            if limit and self.spent + cost > limit:
                raise ConfigError(
                    f"evaluate.models: the budget of {self._model.name} is spent",
                    found=f"{self.spent:.2f} US dollars, and {cost:.2g} for the next request",
                    expected=f"at most endpoint.budget_usd = {limit:g}",
                    mend="raise it and run the same command again: it asks only what is missing",
                )
            self._due, self._under_way = self._due + cost, self._under_way + 1
        try:
            yield
        finally:
            with self._changed:
                self._due, self._under_way = self._due - cost, self._under_way - 1
                self._changed.notify_all()
