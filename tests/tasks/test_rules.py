"""What holds for any text: reading never raises, every row counts, intervals hold their value."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecellm.errors import ConfigError, DataError
from ecellm.tasks.base import Case
from ecellm.tasks.intervals import bootstrap, bootstrap_paper
from ecellm.tasks.registry import ALIASES, TASKS, task

GOLD = {
    "AVE": '[{"attribute": "color", "value": "red", "source": "product title"}]',
    "QPR": "A,B",
    "SR": "C",
    "AG": "an answer",
    **dict.fromkeys(("PM", "PSI", "AP"), "yes"),
    **dict.fromkeys(("PRP", "SA", "MPC"), "B"),
}
texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["", " ", "yes", "A", "A: x", "B,A", "[1]", "[null]", '["attribute"]', '[{"attribute": {}}]', "[[", "1e999"]
    ),
)


@pytest.mark.parametrize("name", TASKS)
@given(replies=st.lists(texts, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_no_reply_breaks_a_rule(name: str, replies: list[str]) -> None:
    found = TASKS[name]
    case = Case.of(
        replies,
        [GOLD[name]] * len(replies),
        setting="OOD_Diverse_Instruction",
        option_labels=["ES"] * len(replies) if name == "QPR" else (),
    )
    for rule in ("paper", "strict"):
        assert found.score(case, rule)
    assert found.score(case, "strict")["n"] == len(replies)
    for reply in replies:
        parsed = found.parse(reply)
        assert parsed is None or found.parse(parsed) == parsed


@pytest.mark.parametrize("name", TASKS)
def test_gold_scores_full_marks(name: str) -> None:
    found = TASKS[name]
    case = Case.of([GOLD[name]] * 3, [GOLD[name]] * 3, setting="IND", option_labels=["ES"] * 3)
    metrics = found.score(case, "strict")
    assert metrics["n_invalid"] == 0
    if name != "AG":
        assert metrics[found.primary] == pytest.approx(1.0)


def test_every_spelling_and_no_other() -> None:
    assert {task(name).id for name in ALIASES} == set(TASKS)
    for spelling in ("Product_Relation_Predicition", "Product_Substitue_Identification", "Query_Product_Ranking"):
        assert task(spelling)
    with pytest.raises(ConfigError, match="Product_Guessing"):
        task("Product_Guessing")


def test_ranking_without_relevance_labels_is_refused() -> None:
    with pytest.raises(DataError, match="relevance labels are missing"):
        TASKS["QPR"].score(Case.of(["A"], ["A"], setting="IND"), "strict")


def test_intervals_of_the_papers_rule_are_those_of_the_strict_one_where_it_drops_nothing() -> None:
    draw = random.Random(3)
    gold = [draw.choice(("yes", "no")) for _ in range(80)]
    said = [one if draw.random() < 0.8 else draw.choice(("yes", "no")) for one in gold]
    case = Case.of(said, gold, setting="IND_Diverse_Instruction")
    pm = TASKS["PM"]
    strict = bootstrap(pm.items(case), pm.reduce, resamples=100, seed=5)["f1"]
    assert bootstrap_paper(pm, case, "f1", resamples=100, seed=5) == pytest.approx(strict)
    nothing = Case.of(["?"] * 80, gold, setting="IND_Diverse_Instruction")
    assert not math.isfinite(bootstrap_paper(pm, nothing, "no such metric", resamples=3, seed=5)[0])


def test_intervals_hold_the_value_and_follow_the_seed() -> None:
    items = (np.random.default_rng(0).random((400, 2)) < 0.6).astype(float)
    reduce = TASKS["SR"].reduce
    value = reduce(items)["recall@1"]
    low, high = bootstrap(items, reduce, resamples=500, seed=3)["recall@1"]
    assert low < value < high
    assert high - low == pytest.approx(2 * 1.96 * (value * (1 - value) / 400) ** 0.5, rel=0.15)
    assert bootstrap(items, reduce, resamples=500, seed=3)["recall@1"] == (low, high)
    assert bootstrap(items, reduce, resamples=500, seed=4)["recall@1"] != (low, high)


@pytest.mark.parametrize("name", ["AP", "PM", "SR"])
def test_shortening_keeps_the_form(name: str) -> None:
    value = {"question": "how long is it?", "document": ["word " * 50, "short one"]}
    short = TASKS[name].shorten(json.dumps(value), 20)
    assert json.loads(short)["question"] == value["question"]
    assert sum(len(t.split()) for t in json.loads(short)["document"]) <= 16
    assert TASKS["SA"].shorten("a b c d", 2) == "a b"
    assert TASKS["SR"].shorten(str(["1st: a b c", "2nd: d"]), 400) == str(["1st: a b c", "2nd: d"])


@pytest.mark.parametrize("name", TASKS)
def test_shortening_never_raises(name: str) -> None:
    for text in ("[" * 900 + "]" * 900, "[" * 9000, "(" * 5000, "5", "null", "[1]", "{'a': 1}", "\ud800 b c d e f g"):
        assert len(TASKS[name].shorten(text, 3).split()) <= max(3, len(text.split()))


@pytest.mark.parametrize("source", [["product title"], {"product title": 1}, 5, True])
def test_a_source_that_is_no_text_stops_the_reference_once_the_rest_is_near(source: object) -> None:
    reply = json.dumps([{"attribute": "color", "value": "dark red", "source": source}])
    case = Case.of([reply], [GOLD["AVE"]], setting="OOD_Diverse_Instruction")
    found = TASKS["AVE"].score(case, "paper")
    assert found["reference_would_raise"]
    assert (found["recall"], found["#invalid"]) == (0, 1)
    inside = TASKS["AVE"].score(Case.of([reply], [GOLD["AVE"]], setting="IND_Diverse_Instruction"), "paper")
    assert "reference_would_raise" not in inside


@pytest.mark.parametrize("name", ["PM", "SR", "MPC", "QPR"])
def test_a_prediction_that_is_no_text_is_blank_and_flagged(name: str) -> None:
    case = Case.of([None, GOLD[name]], [GOLD[name]] * 2, setting="IND", option_labels=["ES"] * 2)
    paper = TASKS[name].score(case, "paper")
    assert paper["reference_would_raise"]
    assert paper["#invalid"] == 1
    assert TASKS[name].score(case, "strict")["n_invalid"] == 1


def test_triples_are_the_same_in_any_order() -> None:
    of = TASKS["AVE"]
    one, other = ({"attribute": "color", "value": value, "source": "product title"} for value in ("red", "blue"))
    gold, turned = json.dumps([one, other]), json.dumps([dict(reversed(t.items())) for t in (other, one)])
    assert of.score(Case.of([turned], [gold], setting="IND"), "strict")["f1"] == 1.0
    assert of.parse(turned) == of.parse(gold)
    assert of.parse(json.dumps([one])) != of.parse(gold) != of.parse(json.dumps([one, other, other]))
    assert of.parse('[3, null, {"b": [1], "a": {}}, "x", []]') == of.parse('["x", [], {"a": {}, "b": [1]}, 3, null]')


def test_a_reading_can_be_written_as_utf8() -> None:
    parsed = TASKS["AVE"].parse('["\\ud800"]')
    assert parsed is not None
    assert parsed.encode()
