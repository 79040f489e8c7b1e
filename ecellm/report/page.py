"""From outcomes to the two pages. The templates hold the words and the look, this holds what they are given.

Whatever came out of data or a model is escaped in both: a product's text can hold markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from ecellm.report import paper
from ecellm.report.card import counts, notes
from ecellm.report.compare import Cell, Line, lines, settings_of, verdict
from ecellm.report.curves import dots
from ecellm.report.facts import commands, curves, facts, headline
from ecellm.report.failures import failures
from ecellm.report.load import Outcome


def html(outcomes: Sequence[Outcome]) -> str:
    """report.html, self-contained."""
    return _environment().get_template("report.html.j2").render(**_given(outcomes))


def markdown(outcomes: Sequence[Outcome]) -> str:
    """report.md."""
    return _environment().get_template("report.md.j2").render(**_given(outcomes))


def figure(cell: Cell | None) -> str:
    """A figure with three decimals, or a dash where there is none."""
    return "–" if cell is None else f"{cell.value:.3f}"


def interval(cell: Cell | None) -> str:
    """The 95 % interval, or nothing."""
    return "" if cell is None or cell.low is None or cell.high is None else f"{cell.low:.3f} – {cell.high:.3f}"


def delta(line: Line) -> str:
    """Tuned minus the better of the other two, with its sign."""
    return "–" if line.delta is None else f"{line.delta:+.3f}".replace("-", "−")


def mark(line: Line) -> str:
    """Whether the tuned model beats both others, in a word."""
    if line.beats is None:
        return "not known"
    return ("yes, clearly" if line.clearly else "yes") if line.beats else "no"


def plain(text: str) -> str:
    """Text inside a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def fenced(text: str) -> str:
    """Text inside a Markdown fence of four backticks, which it cannot close."""
    return text.replace("````", "'```")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ecellm.report", "templates"),
        autoescape=select_autoescape(["html.j2", "html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "figure": figure, "interval": interval, "delta": delta, "mark": mark, "plain": plain, "fenced": fenced,
    }  # fmt: skip
    return environment


def _given(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "title": ", ".join(outcome.name for outcome in outcomes),
        "made_up": any(outcome.made_up for outcome in outcomes),
        "runs": [_run(outcome) for outcome in outcomes],
        "side": _side_by_side(outcomes) if len(outcomes) > 1 else [],
        "paper_site": paper.SITE,
    }


def _run(outcome: Outcome) -> dict[str, Any]:
    tables = [_table(outcome, setting) for setting in settings_of(outcome.scores)]
    return {
        "name": outcome.name,
        "out": outcome.out,
        "made_up": outcome.made_up,
        "headline": headline(outcome),
        "facts": facts(outcome),
        "gaps": outcome.gaps,
        "tables": tables,
        "curves": curves(outcome),
        "counts": counts(outcome),
        "notes": notes(outcome.card),
        "failures": [one for setting in settings_of(outcome.scores) for one in failures(outcome, setting)],
        "commands": commands(outcome),
    }


def _table(outcome: Outcome, setting: str) -> dict[str, Any]:
    strict = lines(outcome.scores, setting, "strict")
    tasks = [line.task for line in strict]
    return {
        "setting": setting,
        "domain": "in domain" if setting.startswith("IND") else "out of domain",
        "strict": strict,
        "verdict": verdict(strict),
        "dots": dots(strict),
        "paper_rule": lines(outcome.scores, setting, "paper"),
        "tasks": tasks,
        "metrics": [paper.PRIMARY[task] for task in tasks],
        "ours": [line.tuned for line in strict],
        "paper": paper.primary_rows(setting[:3], tasks),
    }


def _side_by_side(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The tuned model of every run, one column each."""
    found = []
    settings = sorted(
        {setting for outcome in outcomes for setting in outcome.scores.get("tuned", {})},
        key=lambda setting: (not setting.startswith("IND"), setting),
    )
    for setting in settings:
        by_run = [{line.task: line for line in lines(outcome.scores, setting, "strict")} for outcome in outcomes]
        tasks = [
            line.task
            for line in lines({str(i): o.scores.get("tuned", {}) for i, o in enumerate(outcomes)}, setting, "strict")
        ]
        rows = [(task, [of[task].tuned if task in of else None for of in by_run]) for task in tasks]
        found.append({"setting": setting, "rows": rows})
    return found
