"""Scored answers: what counts for which, checked against sums by hand and against every possible order."""

import math
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecellm.evaluate.engines.local import chosen
from ecellm.evaluate.requests import Form, request
from ecellm.model.choose import Likelihood, Tokens, best, expected_order, fan_of, likelihoods
from ecellm.model.pack import Fan, mask_of
from ecellm.tasks.ranking import GAINS


def lines_of(options: Sequence[Tokens], fan: Fan, seed: int = 0) -> Mapping[int, np.ndarray]:
    """Log-probabilities of a made-up model over 12 tokens after each way."""
    logits = np.random.default_rng(seed).normal(0, 2, (len(fan.tokens) + 1, 12))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return {place - 1: line for place, line in enumerate(logs)}


OPTIONS = st.lists(
    st.lists(st.integers(0, 11), min_size=1, max_size=4).map(tuple), min_size=2, max_size=8, unique=True
)  # fmt: skip


@given(options=OPTIONS, seed=st.integers(0, 99))
def test_a_score_is_the_sum_along_its_own_way_whatever_the_others_share(options: list[Tokens], seed: int) -> None:
    fan = fan_of(options)
    assert len(fan.tokens) == len({option[:end] for option in options for end in range(1, len(option))})
    lines = lines_of(options, fan, seed)
    found = likelihoods(options, fan, lines)
    for option, one in zip(options, found, strict=True):
        place, total = -1, 0.0
        for end, token in enumerate(option):
            total += float(lines[place][token])
            if end < len(option) - 1:
                place = next(i for i, t in enumerate(fan.tokens) if t == token and fan.parents[i] == place)
        assert one.total == pytest.approx(total)
        assert one.mean == pytest.approx(total / len(option))
    assert sum(one.share for one in found) == pytest.approx(1)
    assert sum(one.stepwise for one in found) == pytest.approx(1)
    assert sorted(range(len(found)), key=lambda i: found[i].share) == sorted(
        range(len(found)), key=lambda i: found[i].total
    )


@given(options=OPTIONS)
def test_a_branch_of_the_fan_sees_the_prompt_and_its_own_way_alone(options: list[Tokens]) -> None:
    fan = fan_of(options)
    if not fan.tokens:
        return
    import torch

    mask = mask_of(3, 2, fan, torch.float32, "cpu")
    assert mask is not None
    sees = mask.isfinite()
    for i in range(len(fan.tokens)):
        way, place = set(), i
        while place >= 0:
            way.add(place)
            place = fan.parents[place]
        assert {int(k) - 5 for k in sees[2 + i].nonzero()} == {*range(-5, 0), *way}


def test_a_long_answer_is_not_worse_for_being_long() -> None:
    """By the sum the short one wins, by the mean the long one: it is the mean that chooses."""
    short, long = Likelihood(-2.0, -2.0, 0.7, 0.5), Likelihood(-3.0, -1.0, 0.3, 0.5)
    form = Form(options=("yes", "no, never, not"), tokens=((5,), (6, 7, 8)))
    asked = request([1], model="m", decoding="choice", max_new_tokens=8, seed=1, form=form)
    answer = chosen(asked, [short, long])
    assert (answer.text, answer.finish_reason, answer.tokens) == ("no, never, not", "choice", 0)
    assert answer.shares == {"yes": 0.7, "no, never, not": 0.3}
    assert best([short, Likelihood(-4.0, -2.0, 0.1, 0.1)]) == 0  # the first of equals


@pytest.mark.parametrize("seed", range(20))
def test_no_order_has_a_higher_expected_gain(seed: int) -> None:
    """Against all orders of four: gain of each item by its expected relevance, discounted as NDCG does."""
    draw = np.random.default_rng(seed)
    orders = list(permutations("ABCD"))
    shares = draw.dirichlet(np.full(len(orders), 0.2))
    gains = tuple(GAINS.values())
    padded = [*gains, 0.0, 0.0, 0.0, 0.0][:4]

    def worth(order: Sequence[str]) -> float:
        expected = {
            item: sum(share * padded[one.index(item)] for one, share in zip(orders, shares, strict=True))
            for item in "ABCD"
        }
        return sum(expected[item] / math.log2(place + 2) for place, item in enumerate(order))

    found = expected_order(orders, list(shares), gains)
    assert worth(found) == pytest.approx(max(map(worth, orders)))


def test_a_ranking_is_answered_with_the_order_of_highest_expected_gain_not_with_the_likeliest() -> None:
    orders = ("A,C,B", "B,C,A", "B,A,C")
    form = Form(options=orders, tokens=((5,), (6,), (7,)), ranked=True)
    asked = request([1], model="m", decoding="choice", max_new_tokens=8, seed=1, form=form)
    likely = [Likelihood(math.log(share), math.log(share), share, share) for share in (0.36, 0.32, 0.32)]
    assert chosen(asked, likely).text == "B,A,C"  # B is first with 0.64; then A, that is first more often than C
