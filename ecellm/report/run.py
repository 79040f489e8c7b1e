"""The stage `report`: what one or more runs left behind, to report.html and report.md in the first of them."""

from __future__ import annotations

from collections.abc import Sequence

from ecellm.console import note
from ecellm.console import stage as banner
from ecellm.errors import ConfigError
from ecellm.report.load import load
from ecellm.report.page import html, markdown
from ecellm.storage.base import join

HTML, MARKDOWN = "report.html", "report.md"


def report(outs: Sequence[str]) -> dict[str, object]:
    """Write the report of these runs. Returns where it lies and what was missing.

    Raises ConfigError without an OUT, DataError where one holds nothing of a run or a broken file.
    """
    if not outs:
        raise ConfigError("report: no run to report on", expected="OUT [OUT …]", mend="name the `out` of a run")
    banner("report", ", ".join(outs))
    outcomes = [load(out) for out in outs]
    for outcome in outcomes:
        for gap in outcome.gaps:
            note(f"missing in {outcome.out}: {gap.what} ({gap.command})")
    storage = outcomes[0].storage
    storage.write(HTML, html(outcomes).encode())
    storage.write(MARKDOWN, markdown(outcomes).encode())
    note(join(storage.root, HTML))
    return {
        "html": join(storage.root, HTML),
        "markdown": join(storage.root, MARKDOWN),
        "missing": [gap.what for outcome in outcomes for gap in outcome.gaps],
    }
