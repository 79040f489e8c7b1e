"""Whether two systems differ on the same rows: approximate randomisation (Noreen 1989) and the paired bootstrap.

Each row's statistics of the two systems are swapped or not by the toss of a coin; `p` is how often that makes a
difference at least as large as the one found, so it needs no assumption about the metric. The interval of the
difference resamples rows, the same ones for both systems. Both draws depend on the seed and the number of rows alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ecellm.tasks.base import Floats, Task

LEVEL = 0.05
"""Two-sided level at which a difference is called significant."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """First minus second on one metric, its 95 % interval, the two-sided p, and over how many rows."""

    difference: float
    low: float
    high: float
    p: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether the difference is unlikely to be chance."""
        return self.p < LEVEL


def compare(task: Task, first: Floats, second: Floats, *, resamples: int, seed: int) -> Comparison:
    """Compare two systems on a task's primary metric by their rows' statistics [n, k], rows aligned.

    Raises ValueError where the two differ in shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"statistics of {first.shape} and {second.shape}")
    n, metric = len(first), task.primary
    mine, theirs = task.rules.parts(first), task.rules.parts(second)

    def difference(one: Floats, other: Floats) -> Floats:
        return task.rules.of_sums(one, n, metric) - task.rules.of_sums(other, n, metric)

    found = float(difference(mine.sum(axis=0)[None], theirs.sum(axis=0)[None])[0])
    if not n or np.array_equal(mine, theirs):
        return Comparison(found, found, found, 1.0, n)
    key = hashlib.sha256(f"significance {seed} {n}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(key[:8]))
    swapped = (generator.random((resamples, n)) < 0.5) @ (theirs - mine)
    drawn = difference(mine.sum(axis=0) + swapped, theirs.sum(axis=0) - swapped)
    as_large = int((np.abs(drawn) >= abs(found) - 1e-12).sum())
    counts = generator.multinomial(n, np.full(n, 1 / n), size=resamples)  # how often each row is drawn
    low, high = np.quantile(difference(counts @ mine, counts @ theirs), (0.025, 0.975))
    return Comparison(found, float(low), float(high), (1 + as_large) / (1 + resamples), n)
