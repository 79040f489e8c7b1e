"""What a task is: pure functions from text to text and numbers. No torch, no Ray, no files.

The same object renders the prompt that trains a model and reads the reply that the model gives later, so the two
cannot drift apart. Each score names its rule: `paper` (the authors' evaluator, faults included) or `strict` (every
row counts, an answer that cannot be read is wrong).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecellm.errors import DataError
from ecellm.records import Row
from ecellm.tasks import template as templates
from ecellm.tasks.options import none as no_options

Floats = NDArray[np.float64]
Similarity = Callable[[Sequence[str], Sequence[str]], Floats]
"""(predictions, labels) of n texts -> [n, 3]: precision, recall, F1 of each pair."""
Learnt = Callable[[Sequence[str], Sequence[str]], Floats]
"""(predictions, labels) of n texts -> [n]: a learnt score of each pair; NaN where it could not be computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is scored at once: n replies and gold answers of one task and setting.

    `option_labels` holds, for QPR, a string of ESCI letters per item. `family` is `t5` for the authors' T5 variant.
    """

    predictions: tuple[str, ...]
    labels: tuple[str, ...]
    setting: str
    option_labels: tuple[str, ...] = ()
    family: str = ""
    similarity: Similarity | None = None
    bleurt: Learnt | None = None
    encoder: str = ""
    missing: int = 0
    """Predictions that were no string, and stand here as blank."""

    @classmethod
    def of(
        cls,
        predictions: Sequence[str | None],
        labels: Sequence[str],
        *,
        setting: str,
        option_labels: Sequence[Sequence[str]] = (),
        family: str = "",
        similarity: Similarity | None = None,
    ) -> Case:
        """A case of loose lists. A prediction that is no string counts as blank."""
        return cls(
            predictions=tuple(p if isinstance(p, str) else "" for p in predictions),
            labels=tuple(labels),
            setting=setting,
            option_labels=tuple("".join(letters) for letters in option_labels),
            family=family,
            similarity=similarity,
            missing=sum(not isinstance(p, str) for p in predictions),
        )

    def of_rows(self, rows: Sequence[int]) -> Case:
        """The same with these rows, in this order; a row may come several times."""
        predictions, labels = (tuple(of[row] for row in rows) for of in (self.predictions, self.labels))
        letters = tuple(self.option_labels[row] for row in rows) if self.option_labels else ()
        return replace(self, predictions=predictions, labels=labels, option_labels=letters)


Metrics = dict[str, float]


class Rules(Protocol):
    """How one kind of answer is read and scored."""

    def parse(self, text: str, options: str | None = None, family: str = "") -> str | None:
        """The answer in canonical form, or None: not an answer. Never raises.

        `options` are a row's relevance labels, without which a ranking is read as one of four products; `family` is
        that of a case. With both, None stands exactly where the item counts as unreadable under the strict rule.
        """

    def paper(self, case: Case) -> Metrics:
        """The authors' numbers."""

    def items(self, case: Case) -> Floats:
        """[n, k] statistics of each item under the strict rule; what they mean is this object's own business."""

    def reduce(self, items: Floats) -> Metrics:
        """Metrics of any selection of items: what resampling needs."""

    def parts(self, items: Floats) -> Floats:
        """[n, m]: what of each item adds up, so that many resamples are one product of matrices."""

    def of_sums(self, sums: Floats, n: int, metric: str) -> Floats:
        """[r]: the metric of r selections of n items, from the sums [r, m] of their parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One of the ten tasks."""

    id: str
    name: str
    """The published rows' spelling."""
    category: str
    kind: str
    primary: str
    """Metric key that stands for the task in the paper's tables."""
    max_new_tokens: int
    """Longest answer asked for; the paper asks for 100 everywhere and cuts long ones."""
    rules: Rules
    shortener: Callable[[str, int], str]
    options: Callable[[Row], tuple[str, ...]] = no_options
    """Possible answers of a row, where there are a few; for a ranking its orders."""
    grammar: Callable[[Row], str] | None = None
    """The form of a row's answer, where it has one; see `tasks/grammar.py`."""

    def render(self, row: Row, template: templates.Template = "alpaca") -> str:
        """The prompt of a row. A one-shot example stands before the input, under its own heading (our format)."""
        text = row.input
        if row.few_shot_example:
            text = f"Example: {row.few_shot_example}\nNow: {row.input}"
        return templates.fill(template, row.instruction, text, row.options)

    def shorten(self, input: str, words: int) -> str:
        """The input with at most about `words` words; JSON stays JSON."""
        return self.shortener(input, words)

    def parse(self, text: str, row: Row | None = None, family: str = "") -> str | None:
        """The strict rule's reading of a reply, canonical, or None; of a reply to `row`, where that is known."""
        return self.rules.parse(text, row.option_labels if row else None, family)

    def items(self, case: Case) -> Floats:
        """Per-item statistics, strict rule. Raises DataError where the lists differ in number."""
        check(case, self.id)
        return self.rules.items(case)

    def reduce(self, items: Floats) -> Metrics:
        """Metrics from per-item statistics, strict rule."""
        return self.rules.reduce(items)

    def score(self, case: Case, rule: str) -> Metrics:
        """All metrics of a case under `paper` or `strict`.

        Under `paper`, `reference_would_raise` stands among them where the authors' evaluator stops with an error.
        Raises DataError where predictions, labels or option labels differ in number.
        """
        check(case, self.id)
        if rule != "paper":
            return self.reduce(self.rules.items(case))
        # Stripping what is no string stops the authors' evaluator; AVE and AG never strip.
        stops = case.missing and self.kind not in ("extraction", "text")
        return self.rules.paper(case) | ({"reference_would_raise": True} if stops else {})


def check(case: Case, task: str) -> None:
    """Raise DataError unless every list has one entry for each label."""
    n, found = len(case.labels), len(case.predictions)
    if n != found:
        raise DataError(
            f"{task}: predictions and labels differ in number",
            found=f"{found} predictions, {n} labels",
            expected="one prediction for each label, in the same order",
            mend="evaluate the missing rows, or give the labels of these rows",
        )
    if task == "QPR" and len(case.option_labels) != n:
        raise DataError(
            "QPR: relevance labels are missing",
            found=f"{len(case.option_labels)} lists of option labels, {n} rows",
            expected="one list of E, S, C, I for each row",
            mend="give --option-labels FILE (the published label.json, or the rows' option_labels)",
        )
