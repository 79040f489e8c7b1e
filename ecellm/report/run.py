"""The stage `report`: what one or more runs left behind, to report.html, report.md and report.tex."""

from __future__ import annotations

from collections.abc import Sequence

from ecellm.console import note
from ecellm.console import stage as banner
from ecellm.errors import ConfigError
from ecellm.report import latex, paper
from ecellm.report.board import boards
from ecellm.report.load import load
from ecellm.report.page import pages
from ecellm.storage.base import join
from ecellm.storage.open import open_storage

HTML, MARKDOWN, LATEX = "report.html", "report.md", "report.tex"


def report(outs: Sequence[str], to: str = "") -> dict[str, object]:
    """Write the report of these runs. Returns where it lies and what was missing.

    Args:
        outs: outputs of runs.
        to: folder or s3:// prefix for the report; empty: the first run's output.

    Raises ConfigError without an OUT, DataError where one holds nothing of a run or a broken file.
    """
    if not outs:
        raise ConfigError("report: no run to report on", expected="OUT [OUT …]", mend="name the `out` of a run")
    banner("report", ", ".join(outs))
    outcomes = [load(out) for out in outs]
    for outcome in outcomes:
        for gap in outcome.gaps:
            note(f"missing in {outcome.out}: {gap.what} ({gap.command})")
    storage = open_storage(to) if to else outcomes[0].storage
    found = boards(outcomes)
    html, markdown = pages(outcomes, found)
    storage.write(HTML, html.encode())
    storage.write(MARKDOWN, markdown.encode())
    storage.write(LATEX, latex.tables(found, paper.SITE, made_up=any(one.made_up for one in outcomes)).encode())
    note(join(storage.root, HTML))
    return {
        "html": join(storage.root, HTML),
        "markdown": join(storage.root, MARKDOWN),
        "latex": join(storage.root, LATEX),
        "missing": [gap.what for outcome in outcomes for gap in outcome.gaps],
    }
