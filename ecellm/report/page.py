"""From outcomes to the two pages. The templates hold the words and the look, this holds what they are given.

Whatever came out of data or a model is escaped in both: a product's text can hold markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from ecellm.report import paper
from ecellm.report.apart import apart
from ecellm.report.board import Board, Figure
from ecellm.report.browser import embedded, entries
from ecellm.report.card import counts, notes
from ecellm.report.compare import Cell, Line, lines, settings_of, verdict
from ecellm.report.curves import dots
from ecellm.report.facts import commands, curves, facts, headline
from ecellm.report.failures import failures
from ecellm.report.load import Outcome, leading
from ecellm.report.plots import radar


def pages(outcomes: Sequence[Outcome], boards: Sequence[Board]) -> tuple[str, str]:
    """report.html, self-contained, and report.md."""
    environment, given = _environment(), _given(outcomes, boards)
    return tuple(environment.get_template(f"report.{kind}.j2").render(**given) for kind in ("html", "md"))  # type: ignore[return-value]


def marked(cell: Figure | None) -> str:
    """A figure of the scoreboard in Markdown, bold or underlined; with its metric, where that is not its column's."""
    text = figure(cell)
    if cell is None:
        return text
    shown = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.tied else text
    return f"{shown} ({plain(metric(cell.other_metric))})" if cell.other_metric else shown


def metric(name: str) -> str:
    """A metric's key as people know it."""
    return name.replace("bertscore_f1", "BERTScore F1").replace("recall@1", "HR@1").replace("_", " ")


def chance(p: float | None) -> str:
    """How likely chance makes such a difference."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def figure(cell: Cell | Figure | None) -> str:
    """A figure with three decimals, or a dash where there is none."""
    return "–" if cell is None else f"{cell.value:.3f}"


def interval(cell: Cell | Figure | None) -> str:
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
        "chance": chance, "marked": marked, "metric": metric, "figure": figure, "interval": interval, "delta": delta,
        "mark": mark, "plain": plain, "fenced": fenced,
    }  # fmt: skip
    return environment


def _given(outcomes: Sequence[Outcome], boards: Sequence[Board]) -> dict[str, Any]:
    return {
        "title": ", ".join(outcome.name for outcome in outcomes),
        "made_up": any(outcome.made_up for outcome in outcomes),
        "runs": [_run(outcome) for outcome in outcomes],
        "boards": boards,
        "radars": [chart for board in boards if (chart := radar(board))],
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
        "leading": leading(outcome),
        "apart": apart(outcome),
        "browser": embedded(found) if (found := entries(outcome)) else "",
        "failures": [one for setting in settings_of(outcome.scores) for one in failures(outcome, setting)],
        "commands": commands(outcome),
    }


def _table(outcome: Outcome, setting: str) -> dict[str, Any]:
    strict = lines(outcome.scores, setting, "strict", outcome)
    return {
        "setting": setting,
        "domain": "in domain" if setting.startswith("IND") else "out of domain",
        "strict": strict,
        "verdict": verdict(strict),
        "dots": dots(strict),
        "paper_rule": lines(outcome.scores, setting, "paper"),
    }
