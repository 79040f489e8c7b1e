"""Resuming costs the same at any step.

Measured: seconds from "these samples are consumed" to the first batch in hand (metrics of earlier steps, order of the
epoch, deal, pack, tensors) for 0 to 10 million consumed samples, on a set of 200,000 samples, 12 times each in random
order, nothing cached; metrics.jsonl holds a line for each step (78,000 at 10 million) and for 100 that are done again.
Figure: slope of a straight line through them, in milliseconds per million samples, with its 95 % interval;
indistinguishable from 0 means that the interval holds 0, or that a million samples cost under 1 % of a resume.
Beside it: what the first write of metrics takes more, seconds later, to read the lines of earlier steps.
Compared, as `versus`: the same slope of the usual way, where a loader is set going again and the consumed batches are
thrown away, measured up to 100,000 samples.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression
from torch.utils.data import DataLoader, Dataset

from ecellm.data.order import batch_at, permutation
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train.metrics import KEY, Metrics, kept_lines
from tests.bench._common import MadeTokens, figure, say
from tests.train.toys import toy_layout, toy_run

BATCH, SAMPLES, TIMES = 128, 200_000, 12
CONSUMED = (0, 1_000_000, 2_000_000, 4_000_000, 6_000_000, 8_000_000, 10_000_000)
SKIPPED = (0, 20_000, 50_000, 100_000)
AGAIN = 100
"""Steps after the checkpoint that the attempt before had come to."""


def run() -> Any:
    """Both slopes."""
    tokens = MadeTokens(SAMPLES, 30_000)
    cases = [consumed for consumed in CONSUMED for _ in range(TIMES)]
    random.Random(1).shuffle(cases)
    with tempfile.TemporaryDirectory() as folder:
        outs = {consumed: _left(f"{folder}/{consumed}", consumed // BATCH) for consumed in CONSUMED}
        _ours(tokens, 0, outs[0])
        points = [(consumed / 1e6, _ours(tokens, consumed, outs[consumed])) for consumed in cases]
        later = [(consumed / 1e6, _later(outs[consumed], consumed // BATCH)) for consumed in cases]
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
        earlier_metrics_seconds={f"{at:g} million": statistics.median(seconds for x, seconds in later if x == at)
                                 for at in sorted({x for x, _ in later})},
        samples=[{"consumed_millions": x, "seconds": y} for x, y in sorted(points)],
    )  # fmt: skip


class _Untouched(LocalStorage):
    """What an attempt left; nothing is written over it."""

    def write(self, key: str, data: bytes) -> None:
        """Nothing."""

    def upload(self, path: str, key: str) -> None:
        """Nothing."""


def _left(out: str, steps: int) -> LocalStorage:
    """OUT with a line of metrics for each step, as long as those of 8 workers are, and some steps more."""
    line = {
        "epoch": 1.2345678, "loss": 1.23456789, "grad_norm": 1.23456789, "lr": 1.23456789e-05, "tokens": 31234,
        "tokens_per_second": 12345.6789, "mfu": 0.345678901, "seconds": 1.23456789, "data_wait": 0.0123456789,
        "checkpoint_stall": 0.0, "memory_bytes": 61234567890, "memory_bytes_by_rank": [61234567890] * 8, "workers": 8,
        "attempt": 1,
    }  # fmt: skip
    rest = json.dumps(line)[1:]
    text = "".join(f'{{"step": {step}, {rest}\n' for step in range(1, steps + AGAIN + 1))
    LocalStorage(out).write(KEY, text.encode())
    return _Untouched(out)


def _later(storage: LocalStorage, step: int) -> float:
    """Seconds that the first write of metrics spends on the lines of earlier attempts."""
    began = time.perf_counter()
    kept = kept_lines(storage, step)
    seconds = time.perf_counter() - began
    assert kept.count(b"\n") == step
    return seconds


def _ours(tokens: MadeTokens, consumed: int, storage: LocalStorage) -> float:
    permutation.cache_clear()
    layout = toy_layout(pack_tokens=8192)
    began = time.perf_counter()
    metrics = Metrics(toy_run(storage.root), storage, consumed // BATCH, 2)  # as `loop.fit` does first
    numbers = batch_at(tokens.fingerprint, 1, tokens.n, BATCH, consumed // BATCH)
    dealt = layout.deal(tokens, numbers, 8)
    layout.micro_steps(tokens, numbers, World(rank=0, size=8), dealt, layout.weights(tokens, numbers))
    seconds = time.perf_counter() - began
    with metrics:
        return seconds


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
