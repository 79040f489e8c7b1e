"""How sure a score is: percentile bootstrap over the items of one task and setting (Efron 1979)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from ecellm.tasks.base import Floats, Metrics

_COUNTS = ("n", "n_invalid", "n_malformed")


def bootstrap(
    items: Floats, reduce: Callable[[Floats], Metrics], *, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """95 % interval of every metric of `reduce`, by resampling the n items of [n, k] with replacement.

    The draw depends on the seed and on n alone, so two systems scored on the same rows see the same resamples.
    """
    n = len(items)
    if not n:
        return {}
    key = hashlib.sha256(f"bootstrap {seed} {n}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(key[:8]))
    drawn = [reduce(items[generator.integers(0, n, n)]) for _ in range(resamples)]
    names = [name for name in drawn[0] if name not in _COUNTS]
    return {name: _interval([metrics[name] for metrics in drawn]) for name in names}


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values), (0.025, 0.975))
    return float(low), float(high)
