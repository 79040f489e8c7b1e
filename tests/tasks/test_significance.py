"""Sums give the metrics themselves; differences are found where there are some, and rarely where there are none."""

import numpy as np
import pytest

from ecellm.tasks.base import Case, Floats
from ecellm.tasks.intervals import bootstrap
from ecellm.tasks.registry import TASKS
from ecellm.tasks.significance import compare

ONE, OTHER = '{"attribute": "a", "value": "b", "source": "c"}', '{"attribute": "x", "value": "y", "source": "z"}'
REPLIES = {
    "binary": ["yes", "no", "perhaps"], "choice": ["A", "B", "C: text", "Z"], "ranking": ["A,B,C", "C,B,A", "B", "so"],
    "text": ["a lamp", "", "two lamps"], "extraction": [f"[{ONE}]", "[]", "no list", f"[{ONE}, {OTHER}]"],
}  # fmt: skip
GOLD = {"binary": ["yes", "no"], "choice": ["A", "B", "C"], "ranking": ["A,B,C"], "text": ["a lamp", "none"],
        "extraction": [f"[{ONE}]"]}  # fmt: skip


def items(task: str, n: int, seed: int, right: float = 0.0) -> Floats:
    """Statistics of replies that are right with a probability, and drawn otherwise; gold is the same for every seed."""
    of, gold_draw, draw = TASKS[task], np.random.default_rng(0), np.random.default_rng(seed)
    labels = [str(gold_draw.choice(GOLD[of.kind])) for _ in range(n)]
    said = [label if draw.random() < right else str(draw.choice(REPLIES[of.kind])) for label in labels]

    def alike(one: object, other: object) -> Floats:
        return np.array([[len(a), len(b), (a == b) + 0.1] for a, b in zip(said, labels, strict=True)], dtype=float)

    return of.items(
        Case.of(said, labels, setting="IND", option_labels=["ESI"] * n if task == "QPR" else [], similarity=alike)
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_sum_of_parts_gives_the_metric_of_any_selection(task: str) -> None:
    of, found, draw = TASKS[task], items(task, 60, 1, 0.3), np.random.default_rng(2)
    picks = [np.arange(60), *(draw.integers(0, 60, 60) for _ in range(20))]
    sums = np.stack([of.rules.parts(found)[pick].sum(axis=0) for pick in picks])
    wanted = [of.reduce(found[pick])[of.primary] for pick in picks]
    assert of.rules.of_sums(sums, 60, of.primary) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_a_real_difference_is_found_and_none_is_where_both_are_the_same(task: str) -> None:
    of = TASKS[task]
    good, bad = items(task, 300, 1, 0.8), items(task, 300, 2, 0.2)
    one, other = (compare(of, *pair, resamples=300, seed=1) for pair in ((good, bad), (bad, good)))
    assert one.significant
    assert one.low > 0
    assert other.difference == pytest.approx(-one.difference)
    same = compare(of, good, good, resamples=300, seed=1)
    assert (same.difference, same.p, same.significant) == (0.0, 1.0, False)
    with pytest.raises(ValueError):
        compare(of, good, bad[1:], resamples=10, seed=1)


def test_chance_is_called_significant_about_as_often_as_the_level_says() -> None:
    of = TASKS["PM"]
    found = [compare(of, items("PM", 80, 2 * k + 1, 0.5), items("PM", 80, 2 * k + 2, 0.5), resamples=200, seed=k)
             for k in range(300)]  # fmt: skip
    share = sum(one.significant for one in found) / len(found)
    assert 0.02 <= share <= 0.08
    covered = sum(one.low <= 0 <= one.high for one in found) / len(found)
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("task", ["SR", "PM", "SA", "AVE"])
def test_intervals_cover_the_truth_as_often_as_they_say(task: str) -> None:
    """Rows of one population, whose metric over all of them is the truth: 95 % intervals of samples of 300."""
    of = TASKS[task]
    population = np.concatenate([items(task, 300, k, 0.5) for k in range(100, 200)])
    truth = of.reduce(population)[of.primary]
    draw = np.random.default_rng(5)
    hits = 0
    trials = 300
    for k in range(trials):
        sample = population[draw.integers(0, len(population), 300)]
        low, high = bootstrap(sample, of.reduce, resamples=200, seed=k)[of.primary]
        hits += low <= truth <= high
    assert 0.93 <= hits / trials <= 0.97
