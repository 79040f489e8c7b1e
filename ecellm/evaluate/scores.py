"""Predictions and gold answers to `scores.json`: both rules, with 95 % intervals for the strict one.

The form is a contract (DESIGN 4): `{setting: {task: {rule: {metric: value, "ci95": [lo, hi]}, "n", "n_failed"}}}`.
`ci95` is the interval of the task's primary metric; `ci95_metrics` beside it has every metric's. The paper rule has
none: it drops rows, so a resample of its rows is not a resample of its score. A metric of an encoder that is not the
paper's carries the encoder's name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecellm.records import Prediction, Row
from ecellm.tasks.answers import suffix
from ecellm.tasks.base import Case, Floats, Similarity, Task
from ecellm.tasks.intervals import bootstrap

RULES = ("strict", "paper")
Scores = dict[str, dict[str, dict[str, Any]]]
"""{setting: {task id: scores of it}}."""


class Remembered:
    """A similarity that computes each pair of texts once: both rules and all trivial rules ask for the same."""

    def __init__(self, similarity: Similarity) -> None:
        self.similarity = similarity
        self.known: dict[tuple[str, str], Floats] = {}

    def __call__(self, predictions: Sequence[str], labels: Sequence[str]) -> Floats:
        """[n, 3] precision, recall, F1."""
        pairs = list(zip(predictions, labels, strict=True))
        fresh = sorted({pair for pair in pairs if pair not in self.known})
        if fresh:
            found = self.similarity([a for a, _ in fresh], [b for _, b in fresh])
            self.known.update(zip(fresh, np.asarray(found, dtype=np.float64), strict=True))
        return np.array([self.known[pair] for pair in pairs], dtype=np.float64).reshape(-1, 3)


def score_task(
    task: Task,
    rows: Sequence[Row],
    texts: Sequence[str],
    *,
    resamples: int,
    seed: int,
    similarity: Similarity | None = None,
    encoder: str = "",
    family: str = "",
) -> dict[str, Any]:
    """Scores of one task in one setting.

    Args:
        rows: test rows of one setting, in the order of `texts`.
        family: `t5` for the authors' T5 variant of the paper rule.

    Raises DataError where rows and texts differ in number.
    """
    case = Case(
        predictions=tuple(texts),
        labels=tuple(row.output for row in rows),
        setting=rows[0].setting,
        option_labels=tuple(row.option_labels for row in rows if row.option_labels is not None),
        family=family,
        similarity=similarity,
        encoder=encoder,
    )
    paper = task.score(case, "paper")
    items = task.items(case)
    strict: dict[str, Any] = _named(dict(task.reduce(items)), encoder)
    spans = _named(bootstrap(items, task.reduce, resamples=resamples, seed=seed), encoder)
    strict["ci95"] = list(spans.get(primary(task, strict), ()))
    strict["ci95_metrics"] = {metric: list(span) for metric, span in spans.items()}
    return {
        "strict": _plain(strict),
        "paper": _plain(_named(dict(paper), encoder)),
        "n": len(rows),
        "n_failed": sum(1 for text in texts if task.parse(text) is None),
        "primary": primary(task, strict),
    }


def primary(task: Task, metrics: dict[str, Any]) -> str:
    """The key of the task's primary metric among these, with the encoder's name where it has one."""
    if task.primary in metrics:
        return task.primary
    return next((key for key in sorted(metrics) if key.startswith(f"{task.primary}[")), task.primary)


def _named(metrics: dict[str, Any], encoder: str) -> dict[str, Any]:
    end = suffix(encoder.removeprefix("wheel:").rstrip("/").rsplit("/", 1)[-1])
    return {f"{key}{end}" if key.startswith("bertscore") and "[" not in key else key: metrics[key] for key in metrics}


def _plain(value: Any) -> Any:
    """For JSON: numbers of numpy as Python's, and null where there is no number."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def predictions_jsonl(predictions: Sequence[Prediction]) -> bytes:
    """`predictions.jsonl`: one line for each row, in the rows' order."""
    import json
    from dataclasses import asdict

    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in predictions).encode()
