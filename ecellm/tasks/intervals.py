"""How sure a score is: percentile bootstrap over the items of one task and setting (Efron 1979)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ecellm.tasks.base import Case, Floats, Metrics, Task

_COUNTS = ("n", "n_invalid", "n_malformed")


def bootstrap(
    items: Floats, reduce: Callable[[Floats], Metrics], *, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """95 % interval of every metric of `reduce`, by resampling the n items of [n, k] with replacement.

    The draw depends on the seed and on n alone, so two systems scored on the same rows see the same resamples.
    """
    if not len(items):
        return {}
    drawn = [reduce(items[chosen]) for chosen in _draws(len(items), resamples, seed)]
    names = [name for name in drawn[0] if name not in _COUNTS]
    return {name: _interval([metrics[name] for metrics in drawn]) for name in names}


def bootstrap_paper(task: Task, case: Case, metric: str, *, resamples: int, seed: int) -> tuple[float, float]:
    """95 % interval of a metric under the paper's rule: its n rows are resampled, and the rule drops what it drops.

    Resamples of which it drops all have no score and do not count; nan where none has one.
    """
    values = [
        task.score(case.of_rows(chosen.tolist()), "paper").get(metric, np.nan)
        for chosen in _draws(len(case.labels), resamples, seed)
    ]
    return _interval([value for value in values if np.isfinite(value)] or [np.nan])


def _draws(n: int, resamples: int, seed: int) -> Iterator[Any]:
    """Numbers of the rows of each resample: [n]."""
    key = hashlib.sha256(f"bootstrap {seed} {n}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(key[:8]))
    return (generator.integers(0, n, n) for _ in range(resamples if n else 0))


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values), (0.025, 0.975))
    return float(low), float(high)
