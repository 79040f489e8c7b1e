"""Systems side by side, and whether the tuned one is better: numbers of scores.json, none of our own but differences.

"Beats" means a higher point value than both the untuned model and the best trivial rule; "clearly" means that the
difference to the better of the two is significant on the same rows (p < 0.05), or, where rows were not kept, that its
interval also lies above theirs. Which rule is best is decided for each task by the rules' own scores. Lexical rules
(word overlap) stand beside, and do not enter "beats": the verdict counts them in a sentence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ecellm.report.board import difference
from ecellm.report.load import Outcome, Scores
from ecellm.tasks.registry import TASKS
from ecellm.tasks.significance import LEVEL


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure with its 95 % interval, where it has one. `by` names the rule that made it."""

    value: float
    low: float | None = None
    high: float | None = None
    by: str = ""
    failed: int = 0
    system: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One task in one setting: the systems side by side."""

    setting: str
    task: str
    title: str
    metric: str
    n: int
    tuned: Cell | None
    untuned: Cell | None
    trivial: Cell | None
    lexical: Cell | None = None
    p: float | None = None
    """How likely chance makes such a difference to the better of the other two; None where it is not known."""

    @property
    def rival(self) -> Cell | None:
        """The better of the untuned model and the best trivial rule; None unless both are there."""
        both = [cell for cell in (self.untuned, self.trivial) if cell]
        return max(both, key=lambda cell: cell.value) if len(both) == 2 else None

    @property
    def bar(self) -> float | None:
        """What the tuned model has to beat: the better of the other two; None unless both are there."""
        return max(self.untuned.value, self.trivial.value) if self.untuned and self.trivial else None

    @property
    def delta(self) -> float | None:
        """Tuned minus the better of the other two."""
        return None if self.tuned is None or self.bar is None else self.tuned.value - self.bar

    @property
    def beats(self) -> bool | None:
        """Whether it beats both; None where one of the three is missing."""
        return None if self.delta is None else self.delta > 0

    @property
    def beats_lexical(self) -> bool:
        """Whether it beats the best lexical rule too; False where the task has none."""
        return bool(self.beats and self.tuned and self.lexical and self.tuned.value > self.lexical.value)

    @property
    def clearly(self) -> bool:
        """Whether that is more than chance."""
        if self.p is not None:
            return bool(self.beats) and self.p < LEVEL
        tuned, others = self.tuned, [cell for cell in (self.untuned, self.trivial) if cell]
        if not self.beats or tuned is None or tuned.low is None:
            return False
        return all(tuned.low > (cell.value if cell.high is None else cell.high) for cell in others)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many tasks the tuned model beats both others on."""

    beats: int
    of: int
    not_on: tuple[str, ...]
    unknown: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Tasks of `beats` on which it beats the best lexical rule too."""
    not_also: tuple[str, ...] = ()
    """Tasks with a lexical rule on which it does not beat all three."""
    no_lexical: tuple[str, ...] = ()
    """Tasks without a lexical rule."""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if not self.of:
            return "Nothing to compare yet: a system is missing."
        text = (
            f"The tuned model beats both its untuned self and the best trivial rule on {self.beats} of {self.of} tasks"
        )
        text += f"; not on: {', '.join(self.not_on)}." if self.not_on else "."
        return text + (f" Not comparable yet: {', '.join(self.unknown)}." if self.unknown else "")

    @property
    def beside(self) -> str:
        """The second sentence, on lexical rules; empty where none was evaluated."""
        if not (self.also or self.not_also):
            return ""
        text = f"It beats those two and the best lexical rule (word overlap) on {len(self.also)} of {self.of} tasks"
        text += f"; not on: {', '.join(self.not_also)}" if self.not_also else ""
        return text + (f"; no such rule for: {', '.join(self.no_lexical)}." if self.no_lexical else ".")


def settings_of(scores: dict[str, Scores]) -> list[str]:
    """Settings that any system has, IND first."""
    found = {setting for system in scores.values() for setting in system}
    return sorted(found, key=lambda setting: (not setting.startswith("IND"), setting))


def lines(scores: dict[str, Scores], setting: str, rule: str, outcome: Outcome | None = None) -> list[Line]:
    """The tasks of a setting in the paper's order, primary metric, under `strict` or `paper`.

    With the `outcome` that the scores are from, differences under `strict` are tested on its rows.
    """
    found = [line for task in TASKS if (line := _line(scores, setting, task, rule)) is not None]
    if outcome is None or rule != "strict":
        return found
    return [replace(line, p=_p(outcome, line)) for line in found]


def _p(outcome: Outcome, line: Line) -> float | None:
    if line.tuned is None or line.rival is None:
        return None
    return difference(outcome, line.tuned.system, outcome, line.rival.system, line.setting, line.task)


def verdict(of: Sequence[Line]) -> Verdict:
    """The count over lines that have all three systems."""
    known = [line for line in of if line.beats is not None]
    return Verdict(
        beats=sum(bool(line.beats) for line in known),
        of=len(known),
        not_on=tuple(line.task for line in known if not line.beats),
        unknown=tuple(line.task for line in of if line.beats is None),
        also=tuple(line.task for line in known if line.beats_lexical),
        not_also=tuple(line.task for line in known if line.lexical and not line.beats_lexical),
        no_lexical=tuple(line.task for line in known if not line.lexical),
    )


def _line(scores: dict[str, Scores], setting: str, task: str, rule: str) -> Line | None:
    found = {system: entry[setting][task] for system, entry in scores.items() if task in entry.get(setting, {})}
    if not found:
        return None
    metric = str(next(iter(found.values())).get("primary", TASKS[task].primary))
    cells = {system: cell for system, entry in found.items() if (cell := _cell(entry, rule, metric, system))}
    return Line(
        setting=setting,
        task=task,
        title=TASKS[task].name.replace("_", " ").lower(),
        metric=metric,
        n=max(int(entry.get("n", 0)) for entry in found.values()),
        tuned=cells.get("tuned"),
        untuned=cells.get("untuned"),
        trivial=_best(cells, "trivial"),
        lexical=_best(cells, "lexical"),
    )


def _best(cells: dict[str, Cell], family: str) -> Cell | None:
    rules = [cells[system] for system in sorted(cells) if system.startswith(f"{family}/")]
    return max(rules, key=lambda cell: cell.value, default=None)


def _cell(entry: dict[str, Any], rule: str, metric: str, system: str) -> Cell | None:
    found = entry.get(rule, {})
    value = found.get(metric)
    if value is None:
        return None
    low, high = found.get("ci95") or (None, None)
    by = system.rsplit("/", 1)[-1].replace("_", " ")
    return Cell(float(value), low, high, by, int(entry.get("n_failed", 0)), system)
