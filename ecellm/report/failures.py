"""What the tuned model got wrong: counts by kind, and a few examples of each task with prompt, reply and gold answer.

A reply is `right` when the strict rule reads the same answer from it as from the gold one, `wrong` when it reads
another, `unreadable` when it reads none; `cut off` counts replies that hit the limit of new tokens, whatever they say.
For free text (AG) "wrong" only says that the words differ: its score is a similarity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ecellm.records import Prediction, Row
from ecellm.report.load import Outcome, predictions
from ecellm.rows import read_rows
from ecellm.tasks.registry import TASKS, task

LONGEST = 1600
"""Characters of a prompt that are shown; the middle of a longer one is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One reply that is not the gold answer."""

    id: str
    kind: str
    prompt: str
    reply: str
    parsed: str
    gold: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """One task in one setting."""

    setting: str
    task: str
    n: int
    right: int
    wrong: int
    unreadable: int
    cut_off: int
    examples: tuple[Example, ...]


def failures(outcome: Outcome, setting: str, wanted: int = 3) -> list[Failures]:
    """Counts and up to `wanted` examples for each task that has predictions, in the paper's order."""
    said = {name: predictions(outcome, setting, name) for name in TASKS}
    if not any(said.values()):
        return []
    rows = {(task(row.task).id, row.id): row for row in read_rows(outcome.storage, split="test", setting=setting)}
    return [_failures(outcome, name, setting, found, rows, wanted) for name, found in said.items() if found]


def _failures(
    outcome: Outcome, name: str, setting: str, said: list[Prediction], rows: dict[tuple[str, str], Row], wanted: int
) -> Failures:
    of = TASKS[name]
    kinds = [
        (one, rows[name, one.id], kind_of(name, one, rows[name, one.id])) for one in said if (name, one.id) in rows
    ]
    bad = [entry for entry in kinds if entry[2] != "right"]
    # Unreadable ones first, then in an order that has nothing to do with the answers.
    bad.sort(key=lambda entry: (entry[2] != "unreadable", hashlib.sha256(entry[0].id.encode()).digest()))
    unreadable = [entry for entry in bad if entry[2] == "unreadable"][: (wanted + 1) // 2]
    shown = unreadable + [entry for entry in bad if entry[2] == "wrong"][: wanted - len(unreadable)]
    count = [kind for _, _, kind in kinds].count
    return Failures(
        setting=setting,
        task=name,
        n=len(said),
        right=count("right"),
        wrong=count("wrong"),
        unreadable=count("unreadable"),
        cut_off=sum(one.finish_reason == "length" for one in said),
        examples=tuple(
            Example(
                id=one.id,
                kind=kind,
                prompt=shown_prompt(outcome, name, row),
                reply=one.text,
                parsed="" if one.parsed is None else one.parsed,
                gold=row.output if of.parse(row.output, row) is not None else f"{row.output} (unreadable itself)",
            )
            for one, row, kind in shown
        ),
    )


def shown_prompt(outcome: Outcome, name: str, row: Row) -> str:
    """A row's prompt in the run's template, without the middle of a long one."""
    template = str(((outcome.facts.get("run") or {}).get("prepare") or {}).get("template", "alpaca"))
    return _middle_out(TASKS[name].render(row, "mistral" if template == "mistral" else "alpaca"))


def kind_of(name: str, said: Prediction, row: Row) -> str:
    """`right`, `wrong` or `unreadable`. What was parsed is read again: older versions kept the reply's own order."""
    of = TASKS[name]
    parsed = None if said.parsed is None else of.parse(said.parsed, row)
    if parsed is None:
        return "unreadable"
    return "right" if parsed == of.parse(row.output, row) else "wrong"


def _middle_out(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {len(text) - LONGEST:,} characters left out …]\n{text[-half:]}"
