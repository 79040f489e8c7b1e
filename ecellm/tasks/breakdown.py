"""A score taken apart: by class, by where the rows are from, by what went wrong, and how sure the model was.

Pure counts beside the metrics of `scores.json`; everything here is by the strict rule's reading of replies and gold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ecellm.tasks.base import Floats, Metrics, Task

MOST_GROUPS = 12
"""Groups that are told apart; the rest is `other`."""
UNREADABLE = "unreadable"
BINS = 10
DIGITS = 4
"""Of figures made from probabilities: further ones are the machine's rounding."""


def confusion(task: Task, predictions: Sequence[str], labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """{gold class: {said class or `unreadable`: rows}} of a task with a few classes; empty for others."""
    if task.kind not in ("binary", "choice"):
        return {}
    found: dict[str, Counter[str]] = {}
    for prediction, label in zip(predictions, labels, strict=True):
        gold = task.parse(label) or label.strip()
        found.setdefault(gold, Counter())[task.parse(prediction) or UNREADABLE] += 1
    return {gold: dict(sorted(said.items())) for gold, said in sorted(found.items())}


def by_class(table: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
    """{class: n, said, precision, recall, f1} out of a confusion matrix."""
    said: Counter[str] = Counter()
    for line in table.values():
        said.update(line)
    found = {}
    for name, line in table.items():
        hits, n, called = line.get(name, 0), sum(line.values()), said[name]
        found[name] = {
            "n": n,
            "said": called,
            "precision": hits / called if called else 0.0,
            "recall": hits / n if n else 0.0,
            "f1": 2 * hits / (n + called) if n + called else 0.0,
        }
    return found


def by_group(
    groups: Sequence[str], items: Floats, reduce: Callable[[Floats], Metrics], metric: str
) -> dict[str, dict[str, float]]:
    """{group: n and the metric over its rows}, largest groups first."""
    counts = Counter(groups)
    shown = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_GROUPS]
    names = [name if name in shown else "other" for name in groups]
    found: dict[str, dict[str, float]] = {}
    for name in [*shown, *(["other"] if "other" in names and "other" not in shown else [])]:
        rows = [i for i, one in enumerate(names) if one == name]
        value = reduce(items[rows]).get(metric)
        if value is not None:
            found[name] = {"n": len(rows), metric: float(value)}
    return found


def attribute_of(label: str) -> str:
    """The attribute that an extraction row asks for, out of its gold answer."""
    try:
        return str(json.loads(label)[0]["attribute"])
    except (ValueError, LookupError, TypeError):
        return UNREADABLE


def failures(
    task: Task, predictions: Sequence[str], parsed: Sequence[str | None], reasons: Sequence[str], items: Floats
) -> dict[str, int]:
    """Replies that the strict rule cannot read, by kind, and readable ones with a fault; 0 for what did not occur.

    `parsed` is its reading of each for the reply's own row, None where it cannot read it. `refused`: an endpoint gave
    none; `cut_off`: it ran into the limit of new tokens; `another_option`: it begins like an answer but is none of the
    task's; `no_answer` is the rest. `malformed` (QPR) could be read in part.
    """
    found = dict.fromkeys(("blank", "refused", "cut_off", "another_option", "no_answer"), 0)
    for prediction, reading, reason in zip(predictions, parsed, reasons, strict=True):
        if reading is not None:
            continue
        first = prediction.strip()[:2]
        if reason.startswith(("refused", "malformed")):
            found["refused"] += 1
        elif not prediction.strip():
            found["blank"] += 1
        elif reason == "length":
            found["cut_off"] += 1
        elif task.kind in ("choice", "ranking") and first[:1].isupper() and not first[1:].isalpha():
            found["another_option"] += 1
        else:
            found["no_answer"] += 1
    malformed = task.reduce(items).get("n_malformed") if len(items) else None
    return found | ({"malformed": int(malformed)} if malformed is not None else {})


def calibration(
    task: Task, predictions: Sequence[str], labels: Sequence[str], shares: Sequence[Mapping[str, float] | None]
) -> dict[str, Any]:
    """How sure the model was and how often it was right, for answers that were scored; empty for others.

    `ece` is the expected calibration error over equally wide bins (Naeini et al. 2015), `brier` the mean squared
    difference between the probability of the chosen answer and whether it was right; a bin is [mean probability,
    share right, rows].
    """
    scored = [
        (share[prediction], task.parse(prediction) == task.parse(label))
        for prediction, label, share in zip(predictions, labels, shares, strict=True)
        if share is not None and prediction in share
    ]
    if not scored:
        return {}
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for sure, right in scored:
        bins[min(BINS - 1, int(sure * BINS))].append((sure, right))
    filled = [
        [round(sum(sure for sure, _ in one) / len(one), DIGITS), sum(right for _, right in one) / len(one), len(one)]
        for one in bins
        if one
    ]
    return {
        "n": len(scored),
        "ece": round(sum(n / len(scored) * abs(sure - right) for sure, right, n in filled), DIGITS),
        "brier": round(sum((sure - right) ** 2 for sure, right in scored) / len(scored), DIGITS),
        "bins": filled,
    }
