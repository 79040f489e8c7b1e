"""Losses and gradient norms that leap out of the last ones: reported, never acted upon.

The one decision: a leap is measured against the median of the last steps in units of their median absolute deviation
(scaled by 1.4826 to a normal's standard deviation; Leys et al. 2013), which a few leaps before it do not move.
"""

from __future__ import annotations

import statistics
from collections import deque

WINDOW, LEAST = 100, 20
"""Steps that are looked back on, and needed before anything is said."""
DEVIATIONS, RATIO = 8.0, 1.5
"""A leap is so many deviations above the median, and so many times the median."""


class Spikes:
    """Watches one series of numbers.

    Args:
        name: of the series, for the line.
    """

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self._last: deque[float] = deque(maxlen=WINDOW)

    def see(self, step: int, value: float) -> str:
        """A line where `value` leaps, else nothing. The value counts among the last ones from now on."""
        line = ""
        if len(self._last) >= LEAST:
            middle = statistics.median(self._last)
            spread = 1.4826 * statistics.median(abs(one - middle) for one in self._last)
            if value > middle + DEVIATIONS * spread and value > RATIO * middle:
                self.count += 1
                line = f"step {step}: {self.name} {value:.4g} leaps out of the last {len(self._last)} ({middle:.4g})"
        self._last.append(value)
        return line
