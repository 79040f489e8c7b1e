"""What the rows are like, in numbers: how many, which answers, how long. Counted from the rows, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecellm.looking.pick import rows_of
from ecellm.records import IND, OOD, Row
from ecellm.storage.base import Storage
from ecellm.tasks.registry import task as find_task
from ecellm.tasks.template import fill

Measure = Callable[[Sequence[str]], Sequence[int]]
"""Texts to their lengths."""
POOLS = (("train", "train", IND), ("val", "val", IND), ("test", "test", IND), ("ood", "test", OOD))
"""Pool, its split, its domain."""
CLASSES = 20
"""A task with more distinct answers has no distribution."""
BATCH = 256
BINS = 24


def words(texts: Sequence[str]) -> list[int]:
    """Lengths in words: what white space separates."""
    return [len(text.split()) for text in texts]


@dataclass(slots=True)
class Lengths:
    """Lengths of prompts and answers by one measure."""

    prompts: Counter[int] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Numbers:
    """One task: samples of each pool, answers of each pool, lengths of the training rows by each measure."""

    samples: Counter[str] = field(default_factory=Counter)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    lengths: dict[str, Lengths] = field(default_factory=dict)


def numbers(storage: Storage, measures: Mapping[str, Measure]) -> dict[str, Numbers]:
    """Task id -> numbers, of the diverse setting: every sample once. Raises DataError where there are no rows."""
    found: dict[str, Numbers] = {}
    for pool, split, domain in POOLS:
        waiting: list[Row] = []
        for row in rows_of(storage, split=split, domain=domain):
            one = found.setdefault(find_task(row.task).id, Numbers())
            one.samples[pool] += 1
            answers = one.answers.setdefault(pool, Counter())
            if len(answers) <= 10 * CLASSES or row.output in answers:
                answers[row.output] += 1
            waiting.append(row)
            if len(waiting) == BATCH:
                _measure(waiting, found, measures)
                waiting.clear()
        _measure(waiting, found, measures)
    return found


def _measure(rows: Sequence[Row], found: dict[str, Numbers], measures: Mapping[str, Measure]) -> None:
    prompts = [fill("alpaca", row.instruction, row.input, row.options) for row in rows]
    for name, measure in measures.items():
        lengths = (measure(prompts), measure([row.output for row in rows]))
        for row, prompt, answer in zip(rows, *lengths, strict=True):
            mine = found[find_task(row.task).id].lengths.setdefault(name, Lengths())
            mine.prompts[prompt] += 1
            mine.answers[answer] += 1


def distribution(answers: Counter[str]) -> list[tuple[str, int]]:
    """(answer, how often), the most frequent first; empty where there are too many kinds."""
    return sorted(answers.items(), key=lambda pair: (-pair[1], pair[0])) if len(answers) <= CLASSES else []


def quantile(lengths: Counter[int], share: float) -> int:
    """The length that `share` of the texts do not exceed; 0 where there are none."""
    left = share * lengths.total()
    for length, n in sorted(lengths.items()):
        left -= n
        if left <= 0:
            return length
    return 0


def histogram(lengths: Counter[int], bins: int = BINS) -> list[tuple[int, int, int]]:
    """(from, to, how many) of equal bins up to the 99.5th percentile; the last holds all above."""
    top = max(bins, quantile(lengths, 0.995))
    width = -(-top // bins)
    counts = [0] * bins
    for length, n in lengths.items():
        counts[min(bins - 1, length // width)] += n
    return [(i * width, (i + 1) * width, n) for i, n in enumerate(counts)]


def as_json(found: Mapping[str, Numbers]) -> dict[str, Any]:
    """The numbers as plain values."""
    return {
        task: {
            "samples": dict(one.samples),
            "answers": {pool: dict(distribution(of)) for pool, of in one.answers.items()},
            "lengths": {
                name: {what: {"median": quantile(of, 0.5), "p95": quantile(of, 0.95), "longest": max(of, default=0),
                              "sum": sum(length * n for length, n in of.items())}
                       for what, of in (("prompts", lengths.prompts), ("answers", lengths.answers))}
                for name, lengths in one.lengths.items()
            },
        }
        for task, one in found.items()
    }  # fmt: skip
