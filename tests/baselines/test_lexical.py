"""Lexical rules find what is there, learn on training rows alone, and keep out of the trivial rules' names."""

import json
from dataclasses import replace

import pytest

from ecellm.baselines import lexical, trivial
from ecellm.records import Row
from ecellm.tasks.registry import TASKS
from tests.baselines.made import TRIPLE, row

WITH_RULE = ("AVE", "PM", "PSI", "QPR", "AP", "AG")


def pair(number: int, right: str, label: str) -> Row:
    both = {"product 1": {"title": "red steel lamp"}, "product 2": {"title": right}}
    return replace(row("PM", number), input=json.dumps(both), output=label)


@pytest.mark.parametrize("name", TASKS)
def test_every_rule_answers_every_row(name: str) -> None:
    rows = [row(name, k) for k in range(5)]
    found = lexical.answers(TASKS[name], rows, rows, 1)
    assert bool(found) == (name in WITH_RULE)
    assert not set(found) & set(trivial.answers(TASKS[name], rows, rows, 1))
    for rule, texts in found.items():
        assert len(texts) == 5, rule
        assert all(TASKS[name].parse(text) is not None for text in texts), rule
    assert all(len(texts) == 5 for texts in lexical.answers(TASKS[name], [], rows, 1).values())


def test_rules_find_what_is_there() -> None:
    for name, rule, wanted in (("QPR", "query_overlap", "B,C,A"), ("AG", "overlap_snippet", "the color is red")):
        rows = [row(name, 0)]
        assert lexical.answers(TASKS[name], rows, rows, 1)[rule] == [wanted]
    rows = [row("AVE", 0)]
    assert json.loads(lexical.answers(TASKS["AVE"], rows, rows, 1)["copy_known_value"][0]) == TRIPLE


@pytest.mark.parametrize("swap", [False, True])
def test_the_threshold_and_its_direction_are_learnt(swap: bool) -> None:
    like, unlike = ("no", "yes") if swap else ("yes", "no")
    train = [pair(0, "red steel lamp", like), pair(1, "red steel lamp x1", like), pair(2, "blue mug", unlike)]
    train.append(pair(3, "red wool hat", unlike))
    test = [pair(4, "lamp, red steel", "?"), pair(5, "red cotton sock", "?"), pair(6, "green cup", "?")]
    assert lexical.answers(TASKS["PM"], train, test, 1)["overlap_threshold"] == [like, unlike, unlike]


def test_the_answers_of_test_rows_are_never_read() -> None:
    for name in WITH_RULE:
        rows = [row(name, k) for k in range(3)]
        blind = [replace(one, output="") for one in rows]
        assert lexical.answers(TASKS[name], rows, rows, 1) == lexical.answers(TASKS[name], rows, blind, 1)
