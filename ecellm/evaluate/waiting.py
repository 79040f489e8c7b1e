"""Units that wait for an actor, by voice: who gets which next. No Ray here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ecellm.evaluate.plan import Unit


@dataclass(slots=True)
class Queue:
    """Units that nobody works on, by voice."""

    units: dict[str, list[Unit]]
    """Of each voice, the most expensive last."""

    @classmethod
    def of(cls, units: Sequence[Unit]) -> Queue:
        """A queue of these units."""
        found: dict[str, list[Unit]] = {}
        for unit in sorted(units, key=lambda unit: unit.cost):
            found.setdefault(unit.model, []).append(unit)
        return cls(found)

    def take(self, held: str, holders: Counter[str]) -> Unit | None:
        """The next unit for an actor that holds a voice: of that one, else of the one with most work for its actors."""
        name = held if self.units.get(held) else self.heaviest(holders)
        return self.units[name].pop() if name else None

    def heaviest(self, holders: Counter[str]) -> str:
        """The voice with most work left for each of its actors and one more; empty where nothing is left."""
        left = {
            name: sum(unit.cost for unit in units) / (1 + holders[name]) for name, units in self.units.items() if units
        }
        return max(left, key=lambda name: (left[name], name), default="")

    def put_back(self, unit: Unit) -> None:
        """A unit that was not finished goes first."""
        if unit.requests:
            self.units.setdefault(unit.model, []).append(unit)

    def __len__(self) -> int:
        return sum(map(len, self.units.values()))
