"""Resuming costs the same at any step.

Measured: seconds from "these samples are consumed" to the first batch in hand (order of the epoch, deal, pack,
tensors) for 0 to 10 million consumed samples, on a set of 200,000 samples, 12 times each in random order, nothing
cached. Figure: slope of a straight line through them, in milliseconds per million samples, with its 95 % interval;
indistinguishable from 0 means that the interval holds 0, or that a million samples cost under 1 % of a resume.
Compared, as `versus`: the same slope of the usual way, where a loader is set going again and the consumed batches are
thrown away, measured up to 100,000 samples.
"""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression
from torch.utils.data import DataLoader, Dataset

from ecellm.data.order import batch_at, permutation
from ecellm.records import World
from tests.bench._common import MadeTokens, figure, say
from tests.train.toys import toy_layout

BATCH, SAMPLES, TIMES = 128, 200_000, 12
CONSUMED = (0, 1_000_000, 2_000_000, 4_000_000, 6_000_000, 8_000_000, 10_000_000)
SKIPPED = (0, 20_000, 50_000, 100_000)


def run() -> Any:
    """Both slopes."""
    tokens = MadeTokens(SAMPLES, 30_000)
    cases = [consumed for consumed in CONSUMED for _ in range(TIMES)]
    random.Random(1).shuffle(cases)
    _ours(tokens, 0)
    points = [(consumed / 1e6, _ours(tokens, consumed)) for consumed in cases]
    slope, margin = _slope(points)
    typical = float(np.median([seconds for _, seconds in points]))
    usual = [(skipped / 1e6, _usual(tokens, skipped)) for skipped in SKIPPED for _ in range(2)]
    versus, _ = _slope(usual)
    say(f"ours {slope * 1e3:.3f} ± {margin * 1e3:.3f} ms per million, the usual way {versus * 1e3:.0f}")
    flat = abs(slope) <= margin or abs(slope) < 0.01 * typical
    return figure(
        slope * 1e3, "ms per million consumed samples", versus=versus * 1e3,
        goal="slope indistinguishable from 0", holds=flat, how=__doc__,
        interval=[(slope - margin) * 1e3, (slope + margin) * 1e3], seconds_to_first_batch=typical,
        samples=[{"consumed_millions": x, "seconds": y} for x, y in sorted(points)],
    )  # fmt: skip


def _ours(tokens: MadeTokens, consumed: int) -> float:
    permutation.cache_clear()
    layout = toy_layout(pack_tokens=8192)
    began = time.perf_counter()
    numbers = batch_at(tokens.fingerprint, 1, tokens.n, BATCH, consumed // BATCH)
    dealt = layout.deal(tokens, numbers, 8)
    layout.micro_steps(tokens, numbers, World(rank=0, size=8), dealt, layout.weights(tokens, numbers))
    return time.perf_counter() - began


class _Rows(Dataset[Any]):
    def __init__(self, tokens: MadeTokens) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return self._tokens.n

    def __getitem__(self, i: int) -> Any:
        return self._tokens.sample(i)


def _usual(tokens: MadeTokens, skipped: int) -> float:
    loader = DataLoader(_Rows(tokens), batch_size=BATCH, shuffle=True, collate_fn=lambda rows: rows)
    began = time.perf_counter()
    iterator = iter(loader)
    for _ in range(skipped // BATCH):  # what a loader without an index has to do
        next(iterator)
    next(iterator)
    return time.perf_counter() - began


def _slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope of least squares and half its 95 % interval."""
    x, y = np.array([[one] for one, _ in points]), np.array([one for _, one in points])
    line = LinearRegression().fit(x, y)
    left = y - line.predict(x)
    error = np.sqrt((left**2).sum() / (len(y) - 2) / ((x - x.mean()) ** 2).sum())
    return float(line.coef_[0]), float(1.96 * error)
