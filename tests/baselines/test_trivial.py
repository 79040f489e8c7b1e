"""The rules that any model must beat answer every row, in the task's form, alike on every run."""

import json
from dataclasses import replace

import pytest

from ecellm.baselines.trivial import answers
from ecellm.tasks.registry import TASKS
from tests.baselines.made import DOCUMENT, row


@pytest.mark.parametrize("name", TASKS)
def test_every_rule_answers_every_row(name: str) -> None:
    rows = [row(name, k) for k in range(5)]
    found = answers(TASKS[name], rows, rows, 1)
    assert len(found) >= 2
    for rule, texts in found.items():
        assert len(texts) == 5, rule
        assert all(TASKS[name].parse(text) is not None for text in texts), rule
    assert answers(TASKS[name], rows, rows, 1) == found
    assert all(len(texts) == 5 for texts in answers(TASKS[name], [], rows, 1).values())


@pytest.mark.parametrize("name", TASKS)
def test_no_rule_looks_at_the_answers_that_it_is_scored_on(name: str) -> None:
    rows = [row(name, k) for k in range(3)]
    for known in ([], rows):
        found = answers(TASKS[name], known, rows, 1)
        assert answers(TASKS[name], known, [replace(one, output="[]") for one in rows], 1) == found


def test_without_training_rows_the_majority_is_the_first_option() -> None:
    listed = json.dumps(["A: exact", "B: near"])
    for name, wanted in (("MPC", "A: exact"), ("SR", "A"), ("AG", "")):
        one = replace(row(name, 0), options=listed)
        rule = "most_common" if name == "AG" else "majority"
        assert answers(TASKS[name], [], [one], 1)[rule] == [wanted]


def test_copies_and_orders_are_of_the_row_itself() -> None:
    found = answers(TASKS["QPR"], [], [row("QPR", 0)], 1)
    assert (found["given_order"], found["reversed_order"]) == (["A,B,C"], ["C,B,A"])
    snippets = answers(TASKS["AG"], [], [row("AG", 0)], 1)
    assert snippets["first_snippet"] == [DOCUMENT["document"][0]]
    assert snippets["longest_snippet"] == [DOCUMENT["document"][2]]
    (copied,) = answers(TASKS["AVE"], [], [row("AVE", 0)], 1)["copy_title"]
    assert json.loads(copied) == [{"attribute": "color", "value": "zorvex", "source": "product title"}]
