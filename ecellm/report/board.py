"""The scoreboard: systems of all runs by tasks, one table for each setting, and which differences are not chance.

Of a column's figures on the same rows and by the same metric, the best one is `best` where it is significantly better
than every other (approximate randomisation); where it is not, it and all that it does not clearly beat are `tied`.
Figures on other rows, or by another metric, are never compared: one that has no equal in both is not marked. Rules
without a model stand as the best of their family for each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ecellm.report import paper
from ecellm.report.load import Outcome, items
from ecellm.tasks.registry import TASKS
from ecellm.tasks.significance import LEVEL, compare

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
    other_metric: str = ""
    """Its metric, where that is not its column's."""
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

    @property
    def title(self) -> str:
        """The label, with the decoding where it is not the greedy one."""
        return self.label if self.decoding in ("", "greedy") else f"{self.label} ({self.decoding})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One setting."""

    setting: str
    domain: str
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    paper: list[tuple[str, list[float | None]]] = field(default_factory=list)
    """Rows of the paper's own tables, for tasks in this order; on its own data set, diverse instructions only. None
    where the paper has no figure, or the column is of another metric than the paper's."""


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
    metrics = tuple(_metric(column) for column in columns)
    return Board(
        setting=setting,
        domain="in domain" if setting.startswith("IND") else "out of domain",
        tasks=tasks,
        metrics=metrics,
        rows=tuple(rows),
        paper=_paper(setting, tasks, metrics) if setting[4:] == paper.INSTRUCTIONS else [],
    )


def _paper(setting: str, tasks: Sequence[str], metrics: Sequence[str]) -> list[tuple[str, list[float | None]]]:
    """The paper's rows, without figures that would stand under another encoder's name."""
    same = [metric == TASKS[task].primary for task, metric in zip(tasks, metrics, strict=True)]
    found = [
        (system, [value if one else None for value, one in zip(values, same, strict=True)])
        for system, values in paper.primary_rows(setting[:3], list(tasks))
    ]
    return [(system, values) for system, values in found if any(value is not None for value in values)]


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
    """The column with the best figure, or those that may be the best, marked, each among those on the same rows."""
    found = [
        None if cell is None else replace(cell, other_metric=cell.metric if cell.metric != _metric(column) else "")
        for cell in column
    ]
    groups: dict[tuple[str, ...], list[int]] = {}
    for k, cell in enumerate(column):
        rows = items(outcomes[runs[k]], cell.system, setting, task) if cell else None
        if cell and rows:
            groups.setdefault((cell.metric, *rows[0]), []).append(k)
    for group in groups.values():
        cells = {k: cell for k in group if (cell := found[k]) is not None}
        top = max(cells, key=lambda k: cells[k].value)
        p = {
            k: difference(outcomes[runs[top]], cells[top].system, outcomes[runs[k]], cell.system, setting, task)
            for k, cell in cells.items() if k != top
        }  # fmt: skip
        level = [k for k, one in p.items() if one is not None and one >= LEVEL]
        if level:
            found = [replace(cell, tied=True) if cell and k in (top, *level) else cell for k, cell in enumerate(found)]
        elif any(one is not None for one in p.values()):
            found[top] = replace(cells[top], best=True)
    return found


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
