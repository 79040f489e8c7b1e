"""The scoreboard: systems of all runs by tasks, one table for each setting, and which differences are not chance.

The best figure of a column is `best` where it is significantly better than every other (approximate randomisation
over the same rows); where it is not, it and all figures that it does not clearly beat are `tied`. Figures on other
rows, or by another metric, are never compared. Rules without a model stand as the best of their family for each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ecellm.report import paper
from ecellm.report.load import Outcome, items
from ecellm.tasks.registry import TASKS
from ecellm.tasks.significance import compare

RESAMPLES = 1000
FAMILIES = {"lexical": "best lexical rule", "trivial": "best trivial rule"}
_ORDER = ("tuned", "models", "few_shot", "untuned", "encoder", "tfidf", "recommender", "lexical", "trivial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One system on one task."""

    value: float
    low: float | None
    high: float | None
    n: int
    failed: int
    metric: str
    decoding: str = ""
    system: str = ""
    """The system in its run; for a family the rule that was best."""
    best: bool = False
    tied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system's figures, None where it was not asked."""

    label: str
    cells: tuple[Figure | None, ...]
    run: int
    """Which of the runs it is from."""
    decoding: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One setting."""

    setting: str
    domain: str
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    paper: list[tuple[str, list[float | None]]] = field(default_factory=list)
    """Rows of the paper's own tables, for tasks in this order; on its own data set, diverse instructions only."""


def boards(outcomes: Sequence[Outcome]) -> list[Board]:
    """A table for every setting that any system was evaluated in: in domain first, settings in their own order."""
    settings = {setting for outcome in outcomes for scores in outcome.scores.values() for setting in scores}
    ordered = sorted(settings, key=lambda setting: (not setting.startswith("IND"), _kind(setting), setting))
    return [_board(outcomes, setting) for setting in ordered]


def _kind(setting: str) -> int:
    order = ("Diverse_Instruction", "Unseen_Instruction", "Single_Instruction", "Diverse_Instruction_1-shot")
    name = setting.partition("_")[2]
    return order.index(name) if name in order else len(order)


def _board(outcomes: Sequence[Outcome], setting: str) -> Board:
    rows = [row for number, outcome in enumerate(outcomes) for row in _rows(outcomes, number, outcome, setting)]
    tasks = tuple(
        name for i, name in enumerate(TASKS) if any(row.cells[i] is not None for row in rows)
    )  # fmt: skip
    kept = [list(TASKS).index(name) for name in tasks]
    rows = [replace(row, cells=tuple(row.cells[i] for i in kept)) for row in rows]
    columns = [_marked([row.cells[i] for row in rows], [row.run for row in rows], outcomes, setting, name)
               for i, name in enumerate(tasks)]  # fmt: skip
    rows = [replace(row, cells=tuple(column[k] for column in columns)) for k, row in enumerate(rows)]
    return Board(
        setting=setting,
        domain="in domain" if setting.startswith("IND") else "out of domain",
        tasks=tasks,
        metrics=tuple(_metric(column) for column in columns),
        rows=tuple(rows),
        paper=paper.primary_rows(setting[:3], list(tasks)) if setting[4:] == paper.INSTRUCTIONS else [],
    )


def _rows(outcomes: Sequence[Outcome], number: int, outcome: Outcome, setting: str) -> list[Row]:
    """A run's systems in this setting, the family rules as one row each."""
    names = [name for name in outcome.scores if "/" not in name and setting in outcome.scores[name]]
    names.sort(key=lambda name: (_place(name), name))
    several = len(outcomes) > 1
    found = []
    for name in names:
        cells = tuple(_figure(outcome, name, setting, task) for task in TASKS)
        decodings = {cell.decoding for cell in cells if cell and cell.decoding}
        label = f"{name} · {outcome.name}" if several else name
        found.append(Row(label=label, cells=cells, run=number, decoding=", ".join(sorted(decodings))))
    for family, label in FAMILIES.items():
        rules = [name for name in outcome.scores if name.startswith(f"{family}/")]
        best = tuple(_best_rule(outcome, rules, setting, task) for task in TASKS)
        if any(best):
            found.append(Row(label=f"{label} · {outcome.name}" if several else label, cells=best, run=number))
    return found


def _place(name: str) -> int:
    base = name.partition("@")[0]
    return _ORDER.index(base) if base in _ORDER else _ORDER.index("models")


def _figure(outcome: Outcome, system: str, setting: str, task: str) -> Figure | None:
    entry = outcome.scores[system].get(setting, {}).get(task)
    if entry is None:
        return None
    metric = str(entry.get("primary", TASKS[task].primary))
    value = entry.get("strict", {}).get(metric)
    if value is None:
        return None
    low, high = entry["strict"].get("ci95") or (None, None)
    return Figure(
        value=float(value), low=low, high=high, n=int(entry.get("n", 0)), failed=int(entry.get("n_failed", 0)),
        metric=metric, decoding=str(entry.get("decoding", "")), system=system,
    )  # fmt: skip


def _best_rule(outcome: Outcome, rules: Sequence[str], setting: str, task: str) -> Figure | None:
    found = [cell for rule in rules if (cell := _figure(outcome, rule, setting, task)) is not None]
    return max(found, key=lambda cell: (cell.value, cell.system), default=None)


def _metric(column: Sequence[Figure | None]) -> str:
    return next((cell.metric for cell in column if cell is not None), "")


def _marked(
    column: Sequence[Figure | None], runs: Sequence[int], outcomes: Sequence[Outcome], setting: str, task: str
) -> list[Figure | None]:
    """The column with the best figure, or those that may be the best, marked."""
    known = [k for k, cell in enumerate(column) if cell is not None and cell.metric == _metric(column)]
    if len(known) < 2:
        return list(column)
    top = max(known, key=lambda k: column[k].value)  # type: ignore[union-attr]
    level = {k for k in known if k == top or not _beats(column, runs, outcomes, setting, task, top, k)}
    return [
        None if cell is None else replace(cell, best=k == top and len(level) == 1, tied=k in level and len(level) > 1)
        for k, cell in enumerate(column)
    ]


def _beats(
    column: Sequence[Figure | None], runs: Sequence[int], outcomes: Sequence[Outcome], setting: str, task: str,
    top: int, other: int,
) -> bool:  # fmt: skip
    """Whether the difference of two figures on the same rows is significant."""
    one, two = column[top], column[other]
    assert one is not None
    assert two is not None
    p = difference(outcomes[runs[top]], one.system, outcomes[runs[other]], two.system, setting, task)
    return p is not None and p < 0.05


def difference(
    first: Outcome, system: str, second: Outcome, other: str, setting: str, task: str, resamples: int = RESAMPLES
) -> float | None:
    """Two-sided p of two systems' difference on a task's primary metric; None on different rows, or without them."""
    mine, theirs = items(first, system, setting, task), items(second, other, setting, task)
    if mine is None or theirs is None or mine[0] != theirs[0] or mine[1].shape != theirs[1].shape:
        return None
    if task == "AG" and _encoder(first, system, setting) != _encoder(second, other, setting):
        return None
    of = TASKS[task]
    if any(of.primary not in of.reduce(found[1]) for found in (mine, theirs)):
        return None
    return compare(of, mine[1], theirs[1], resamples=resamples, seed=int(first.facts.get("seed") or 1)).p


def _encoder(outcome: Outcome, system: str, setting: str) -> str:
    return str(outcome.scores.get(system, {}).get(setting, {}).get("AG", {}).get("primary", ""))
