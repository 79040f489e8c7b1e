"""What a training run will need, before anything is spent: memory per GPU, steps, time, cost, checkpoint bytes.

Not a promise: every figure is an estimate from shapes, and the output says what was assumed. What cannot be known
before (how much of the peak a run reaches, what an hour costs) is a range.
"""

from __future__ import annotations

from ecellm.plan.estimate import Plan, plan, stop_seconds
from ecellm.plan.show import show

__all__ = ["Plan", "plan", "show", "stop_seconds"]
