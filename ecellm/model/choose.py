"""Scoring possible answers: their tokens as a fan behind the prompt, and what the model thinks of each.

Pure but for reading numbers out of log-probabilities. `mean` is the length-normalised log-likelihood, by which an
answer is chosen; `share` is the answer's probability among the possible ones, by their whole likelihoods, which is
what a calibration plot needs; `stepwise` renormalises at every branching, for orders, where a prefix is shared by
many answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ecellm.model.pack import Fan

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What a model thinks of one possible answer. Natural logarithms but for the shares, which sum to 1."""

    total: float
    mean: float
    share: float
    stepwise: float


def fan_of(options: Sequence[Tokens]) -> Fan:
    """The tokens that must be put through the model to score these answers: all but each answer's last one.

    >>> fan_of([(1, 2, 3), (1, 4), (5,)])
    Fan(tokens=(1, 2), parents=(-1, 0))
    """
    tokens: list[int] = []
    parents: list[int] = []
    known: dict[Tokens, int] = {(): -1}
    for option in options:
        for end in range(1, len(option)):
            if option[:end] not in known:
                known[option[:end]] = len(tokens)
                tokens.append(option[end - 1])
                parents.append(known[option[: end - 1]])
    return Fan(tuple(tokens), tuple(parents))


def likelihoods(options: Sequence[Tokens], fan: Fan, lines: Mapping[int, Any]) -> list[Likelihood]:
    """What each answer is worth.

    Args:
        options: distinct answers, each with a token.
        fan: `fan_of` them.
        lines: log-probabilities [vocab] of what follows each token of the fan, -1 the prompt.
    """
    ways: list[Tokens] = [()]  # of the prompt, then of each token of the fan
    for token, parent in zip(fan.tokens, fan.parents, strict=True):
        ways.append((*ways[parent + 1], token))
    places = {way: place - 1 for place, way in enumerate(ways)}
    branches: dict[Tokens, list[int]] = {}
    for option in options:
        for end, token in enumerate(option):
            following = branches.setdefault(option[:end], [])
            if token not in following:
                following.append(token)
    logs = {
        way: {token: float(lines[places[way]][token]) for token in following} for way, following in branches.items()
    }
    totals = [math.fsum(logs[option[:end]][token] for end, token in enumerate(option)) for option in options]
    stepwise = [
        math.fsum(logs[option[:end]][token] - _log_sum(logs[option[:end]].values()) for end, token in enumerate(option))
        for option in options
    ]
    whole, steps = _log_sum(totals), _log_sum(stepwise)
    return [
        Likelihood(total, total / len(option), math.exp(total - whole), math.exp(step - steps))
        for option, total, step in zip(options, totals, stepwise, strict=True)
    ]


def best(found: Sequence[Likelihood]) -> int:
    """The answer with the highest mean log-likelihood, the first of equals."""
    return max(range(len(found)), key=lambda i: (found[i].mean, -i))


def expected_order(orders: Sequence[Sequence[str]], shares: Sequence[float], gains: Sequence[float]) -> list[str]:
    """Items by expected gain: what an item's place in each possible order is worth, by that order's probability.

    This is the order that maximises expected discounted gain, whatever the discount. Equals stay in alphabetical
    order.

    >>> expected_order([("A", "B"), ("B", "A")], [0.3, 0.7], [1.0, 0.1])
    ['B', 'A']
    """
    worth = dict.fromkeys(sorted(orders[0]), 0.0)
    for order, share in zip(orders, shares, strict=True):
        for place, item in enumerate(order):
            worth[item] += share * (gains[place] if place < len(gains) else 0.0)
    return sorted(worth, key=lambda item: (-worth[item], item))


def _log_sum(values: Iterable[float]) -> float:
    found = list(values)
    top = max(found)
    return top + math.log(math.fsum(math.exp(value - top) for value in found)) if math.isfinite(top) else top
