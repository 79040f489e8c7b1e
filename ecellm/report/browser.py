"""The browser of failures: what it needs as JSON inside the page, which a few lines of script filter and show.

Rows that the leading system got wrong, with every model's reply to them, so that one sees what training changed. The
one decision: everything is shown as text and nothing as markup, and the JSON is written so that no reply can end its
element.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from markupsafe import Markup

from ecellm.records import Prediction, Row
from ecellm.report.failures import kind_of, shown_prompt
from ecellm.report.load import Outcome, leading, predictions
from ecellm.rows import read_rows
from ecellm.tasks.registry import TASKS, task

EACH = 16
"""Rows of one task and setting."""


def entries(outcome: Outcome) -> list[dict[str, Any]]:
    """One entry for each row that the leading system got wrong, a bounded draw for each task and setting."""
    systems, first = [name for name in outcome.scores if "/" not in name], leading(outcome)
    found: list[dict[str, Any]] = []
    for setting in outcome.scores.get(first, {}):
        rows = {(task(row.task).id, row.id): row for row in read_rows(outcome.storage, split="test", setting=setting)}
        for name in TASKS:
            said = {system: predictions(outcome, setting, name, system) for system in systems}
            found += _of_task(outcome, first, setting, name, said, rows)
    return found


def embedded(entries: list[dict[str, Any]]) -> Markup:
    """The entries as JSON for a script element."""
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    for sign, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, code)
    return Markup(text)


def _of_task(
    outcome: Outcome, first: str, setting: str, name: str, said: dict[str, list[Prediction]],
    rows: dict[tuple[str, str], Row],
) -> list[dict[str, Any]]:  # fmt: skip
    of = TASKS[name]
    by_id = {system: {one.id: one for one in found} for system, found in said.items()}
    wrong = [
        (one, rows[name, one.id]) for one in said[first]
        if (name, one.id) in rows and kind_of(name, one, rows[name, one.id]) != "right"
    ]  # fmt: skip
    # An order that has nothing to do with the answers.
    wrong.sort(key=lambda pair: hashlib.sha256(pair[0].id.encode()).digest())
    found = []
    for one, row in wrong[:EACH]:
        replies = [
            {"system": system, "reply": other.text, "parsed": other.parsed, "kind": kind_of(name, other, row),
             "reason": other.finish_reason}
            for system in said if (other := by_id[system].get(one.id)) is not None
        ]  # fmt: skip
        found.append(
            {"setting": setting, "task": name, "id": one.id, "kind": kind_of(name, one, row), "source": row.source,
             "prompt": shown_prompt(outcome, name, row), "gold": row.output, "gold_parsed": of.parse(row.output, row),
             "replies": replies}
        )  # fmt: skip
    return found
