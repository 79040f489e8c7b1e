"""The leading system's scores taken apart: reliability, confusion, classes, sources, as far as scores.json has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ecellm.report.load import Outcome, leading
from ecellm.report.plots import confusion, reliability
from ecellm.tasks.registry import TASKS


@dataclass(frozen=True, slots=True)
class Groups:
    """Lines of a table: (task, group, figures as text), figures in the order of `columns` after the number of rows."""

    columns: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One setting."""

    setting: str
    reliability: tuple[Markup, ...]
    confusions: tuple[Markup, ...]
    groups: tuple[tuple[str, Groups], ...]


def apart(outcome: Outcome) -> list[Part]:
    """One part for each setting that has anything to take apart. Calibration is shown of every system that has it."""
    first = leading(outcome)
    found = []
    for setting, scores in outcome.scores.get(first, {}).items():
        tables = [(name, scores[name]) for name in TASKS if name in scores]
        sure = tuple(
            reliability(name if system == first else f"{name} · {system}", entry["calibration"])
            for system, by_setting in outcome.scores.items()
            for name in TASKS
            if (entry := by_setting.get(setting, {}).get(name, {})).get("calibration")
        )
        part = Part(
            setting=setting,
            reliability=sure,
            confusions=tuple(confusion(name, entry["confusion"]) for name, entry in tables if entry.get("confusion")),
            groups=_groups(tables),
        )
        if part.reliability or part.confusions or part.groups:
            found.append(part)
    return found


def _groups(tables: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[tuple[str, Groups], ...]:
    classes = [
        (name, group, (_text(line["n"]), *(_text(line.get(key)) for key in ("precision", "recall", "f1"))))
        for name, entry in tables
        for group, line in (entry.get("by_class") or {}).items()
    ]
    sources = [
        (name, group, (_text(line["n"]), _text(value), str(entry.get("primary", key))))
        for name, entry in tables
        for group, line in (entry.get("by_source") or {}).items()
        for key, value in line.items()
        if key != "n"
    ]
    kinds = list(dict.fromkeys(kind for _, entry in tables for kind in entry.get("failures") or {}))
    failed = [
        (name, "all rows", (_text(entry.get("n")), *(_text(entry["failures"].get(kind)) for kind in kinds)))
        for name, entry in tables
        if entry.get("failures")
    ]
    found = (
        ("By class, for extraction by attribute", Groups(("precision", "recall", "f1"), tuple(classes))),
        ("By source", Groups(("figure", "metric"), tuple(sources))),
        ("Replies that could not be read, by kind", Groups(tuple(kinds), tuple(failed))),
    )
    return tuple(one for one in found if one[1].lines)


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
