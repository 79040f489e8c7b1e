"""Predictions and gold answers to `scores.json`: both rules, with 95 % intervals.

The form is a contract (DESIGN 4): `{setting: {task: {rule: {metric: value, "ci95": [lo, hi]}, "n", "n_failed"}}}`.
`ci95` is the interval of the task's primary metric, null where the rule has dropped every row; under the strict rule
`ci95_metrics` beside it has every metric's. A metric of an encoder that is not the paper's carries the encoder's name.
Beside the rules stand what went wrong, breakdowns, and the decoding's name.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ecellm.records import Prediction, Row
from ecellm.tasks import breakdown
from ecellm.tasks.answers import suffix
from ecellm.tasks.base import Case, Floats, Learnt, Similarity, Task
from ecellm.tasks.intervals import bootstrap, bootstrap_paper

RULES = ("strict", "paper")
PAPER_RESAMPLES = 200
"""Most resamples under the paper's rule, each of which is scored anew: the strict rule adds up rows instead."""
Scores = dict[str, dict[str, dict[str, Any]]]
"""{setting: {task id: scores of it}}."""


class Remembered:
    """A model's score of two texts that is computed once for each pair: both rules and all systems ask for the same."""

    def __init__(self, score: Similarity | Learnt) -> None:
        self.score = score
        self.known: dict[tuple[str, str], Floats] = {}

    def __call__(self, predictions: Sequence[str], labels: Sequence[str]) -> Floats:
        """[n, …] what `score` gives for each pair."""
        pairs = list(zip(predictions, labels, strict=True))
        fresh = sorted({pair for pair in pairs if pair not in self.known})
        if fresh:
            found = self.score([a for a, _ in fresh], [b for _, b in fresh])
            self.known.update(zip(fresh, np.asarray(found, dtype=np.float64), strict=True))
        return np.array([self.known[pair] for pair in pairs], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """What scores texts and how often rows are resampled; the models are for AG alone."""

    resamples: int
    seed: int
    similarity: Similarity | None = None
    bleurt: Learnt | None = None
    encoder: str = ""


def as_read(task: Task, rows: Sequence[Row], said: Sequence[Prediction], family: str = "") -> list[Prediction]:
    """The predictions with `parsed` as the strict rule reads them: by the options of their rows and the family."""
    return [replace(one, parsed=task.parse(one.text, row, family)) for one, row in zip(said, rows, strict=True)]


def score_task(
    task: Task, rows: Sequence[Row], said: Sequence[Prediction], judges: Judges, family: str = ""
) -> tuple[dict[str, Any], Floats]:
    """Scores of one task in one setting, and the strict rule's statistics of each row, [n, k].

    Args:
        rows: test rows of one setting, in the order of `said`.
        family: `t5` for the authors' T5 variant of the paper rule.

    Raises DataError where rows and predictions differ in number.
    """
    texts, labels = [one.text for one in said], [row.output for row in rows]
    free, encoder = task.id == "AG", judges.encoder if task.id == "AG" else ""
    case = Case(
        predictions=tuple(texts),
        labels=tuple(labels),
        setting=rows[0].setting,
        option_labels=tuple(row.option_labels for row in rows if row.option_labels is not None),
        family=family,
        similarity=judges.similarity if free else None,
        bleurt=judges.bleurt if free else None,
        encoder=encoder,
    )
    paper = task.score(case, "paper")
    items = task.items(case)
    strict: dict[str, Any] = _named(dict(task.reduce(items)), encoder)
    spans = _named(bootstrap(items, task.reduce, resamples=judges.resamples, seed=judges.seed), encoder)
    main = primary(task, strict)
    strict["ci95"] = list(spans.get(main, ()))
    strict["ci95_metrics"] = {metric: list(span) for metric, span in spans.items()}
    parsed = [one.parsed for one in as_read(task, rows, said, family)]
    kinds = breakdown.failures(task, texts, parsed, [one.finish_reason for one in said], items)
    times = min(judges.resamples, PAPER_RESAMPLES)
    span = bootstrap_paper(task, case, task.primary, resamples=times, seed=judges.seed)
    entry = {
        "strict": _plain(strict),
        "paper": _plain(_named(dict(paper), encoder) | {"ci95": list(span) if math.isfinite(span[0]) else None}),
        "n": len(rows),
        "n_failed": int(strict["n_invalid"]),
        "primary": main,
        "decoding": ", ".join(name for name, _ in Counter(one.decoding for one in said if one.decoding).most_common()),
        "failures": kinds,
    }
    return entry | _plain(_taken_apart(task, rows, said, items, encoder)), items


def _taken_apart(
    task: Task, rows: Sequence[Row], said: Sequence[Prediction], items: Floats, encoder: str
) -> dict[str, Any]:
    """Breakdowns; those that a task does not have are left out."""
    texts, labels = [one.text for one in said], [row.output for row in rows]
    table = breakdown.confusion(task, texts, labels)
    by_source = breakdown.by_group([row.source for row in rows], items, task.reduce, task.primary)
    found = {
        "confusion": table,
        "by_class": breakdown.by_class(table),
        "by_source": {source: _named(line, encoder) for source, line in by_source.items()},
        "calibration": breakdown.calibration(task, texts, labels, [one.shares for one in said]),
    }
    if task.kind == "extraction":
        names = [breakdown.attribute_of(label) for label in labels]
        found["by_class"] = breakdown.by_group(names, items, task.reduce, task.primary)
    return {name: value for name, value in found.items() if value}


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
    lines = []
    for one in predictions:
        line = asdict(one)
        if one.shares is None:
            del line["shares"]
        if one.decoding in ("", "greedy"):
            del line["decoding"]
        lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines).encode()


def items_json(predictions: Sequence[Prediction], items: Floats) -> bytes:
    """`items.json`: the strict rule's statistics of each row, for comparisons of systems row by row."""
    found = {"ids": [one.id for one in predictions], "items": _plain(items.tolist())}
    return json.dumps(found, separators=(",", ":")).encode()
