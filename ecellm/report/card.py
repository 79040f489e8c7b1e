"""The rows that a run learnt from and was asked about: counts, label distribution, what the build dropped.

Counted from the rows themselves, which is what the model saw; the build's own card adds sources and filters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ecellm.records import SPLITS
from ecellm.report.load import Outcome
from ecellm.rows import read_table, row_files
from ecellm.tasks.registry import TASKS, task

MOST_LABELS = 6
FREE = ("AVE", "AG", "QPR", "SR")
"""Tasks whose answers are too many for a distribution of labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCount:
    """Rows of one task in the settings of this run, and how its training labels are distributed."""

    task: str
    train: int
    val: int
    ind: int
    ood: int
    labels: tuple[tuple[str, float], ...]
    """Most frequent labels of the training rows with their shares; empty for free answers."""


def counts(outcome: Outcome) -> list[TaskCount]:
    """Rows for each task, in the paper's order; empty where there are no rows."""
    run = outcome.facts.get("run") or {}
    kind = str((run.get("prepare") or {}).get("setting", "Diverse_Instruction"))
    wanted = {f"IND_{kind}", f"OOD_{kind}"}
    number: Counter[tuple[str, str, str]] = Counter()
    labels: dict[str, Counter[str]] = {}
    for split in SPLITS:
        for key in row_files(outcome.storage, "rows", split):
            table = read_table(outcome.storage, key).select(["task", "setting", "output"])
            for name, setting, output in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if setting not in wanted:
                    continue
                of = task(name).id
                number[split, setting[:3], of] += 1
                if split == "train" and of not in FREE:
                    labels.setdefault(of, Counter())[output.strip()] += 1
    found = {of for _, _, of in number}
    return [
        TaskCount(
            task=of,
            train=number["train", "IND", of],
            val=number["val", "IND", of],
            ind=number["test", "IND", of],
            ood=number["test", "OOD", of],
            labels=_shares(labels.get(of, Counter())),
        )
        for of in TASKS
        if of in found
    ]


def _shares(labels: Counter[str]) -> tuple[tuple[str, float], ...]:
    total = sum(labels.values())
    ordered = sorted(labels.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_LABELS]
    return tuple((label, count / total) for label, count in ordered)


def notes(card: dict[str, Any]) -> list[tuple[str, str]]:
    """What the build's card says beside its counts, as (name, text): sources, filters, draws."""
    said = []
    for key, value in sorted(card.items()):
        if key in ("counts", "fingerprint"):
            continue
        said.extend(_said(key, value))
    return said


def _said(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        parts = [f"{name}: {_short(inner)}" for name, inner in value.items()]
        return [(key, "; ".join(parts))] if parts else []
    if isinstance(value, list):
        return [(key, "; ".join(_short(inner) for inner in value))] if value else []
    return [(key, str(value))]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_short(inner) for inner in value)
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and " " not in text else text
