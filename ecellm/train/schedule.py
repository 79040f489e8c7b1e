"""The learning rate as a function of the step. Pure.

Linear warm-up, then half a cosine to 0 (Loshchilov and Hutter 2017, without restarts). The first step already has a
positive rate, so that no step is spent on nothing.
"""

from __future__ import annotations

import math


def total_steps(steps_per_epoch: int, epochs: int, max_steps: int) -> int:
    """Optimizer steps of a run; `max_steps` 0 means no limit."""
    whole = steps_per_epoch * epochs
    return min(whole, max_steps) if max_steps else whole


def learning_rate(step: int, total: int, peak: float, warmup_ratio: float) -> float:
    """Rate of optimizer step `step`, counted from 0, of `total`.

    Warm-up lasts `ceil(warmup_ratio * total)` steps: `peak * (step + 1) / warmup`. Then
    `peak / 2 * (1 + cos(pi * (step - warmup) / (total - warmup)))`.
    """
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
