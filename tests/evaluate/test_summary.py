"""The table at the end of an evaluation: every digit is there on a screen of 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ecellm.evaluate import summary
from ecellm.tasks.registry import TASKS
from tests.evaluate.conftest import some_rows


def test_ten_tasks_and_many_systems_fit_into_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(summary, "console", Console(file=said, width=80))
    systems = ["tuned", "tuned@choice", "untuned", "encoder", "trivial/one", "trivial/other"]
    scores = {
        system: {"IND": {task: {"primary": "f1", "strict": {"f1": 0.1 * number}} for task in TASKS}}
        for number, system in enumerate(systems)
    }
    del scores["tuned"]["IND"]["AG"]
    summary.show(scores, {("IND", task): some_rows()[:3] for task in TASKS}, made_up=True)
    lines = said.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in said.getvalue()
    assert "made-up" in lines[0]
    assert lines[1].split() == list(TASKS)
    assert lines[2].split() == ["rows", *["3"] * 10]
    assert lines[3].split() == ["tuned", *["0.000"] * 9]  # it has no figure for one task
    assert [line.split()[0] for line in lines[4:7]] == systems[1:4]
    assert lines[7].split() == ["best", "trivial", *["0.500"] * 10]
