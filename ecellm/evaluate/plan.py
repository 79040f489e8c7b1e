"""How requests are cut into units of work: one queue over all models, settings and tasks.

A unit is what a worker takes at once; within it the model's own loop decides what shares a forward pass. Prompts that
begin alike lie in one unit, since their common beginning is computed once. The most expensive units go first: what does
not fit in memory shows at once, and no worker is left alone with a long one at the end. The plan changes speed, never
answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ecellm.evaluate.requests import Request

MOST_ROWS = 512
"""Requests in one unit, however short."""
PART = 0.5
"""A unit is this part of what each worker still has before it: the first are large, so that prefixes are shared and
few rows are decoded alone at the end of one, and the last are small, so that all workers end at once (guided
self-scheduling: Polychronopoulos and Kuck 1987)."""
LEAST_COST = 4_000.0
LIKELY_ANSWER = 24
"""Tokens of an answer that has room for more, for estimates."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Requests of one model and one decoding that a worker takes at once."""

    model: str
    requests: tuple[Request, ...]

    @property
    def cost(self) -> float:
        """Estimated work, in prompt tokens."""
        return sum(cost(request) for request in self.requests)


def cost(request: Request) -> float:
    """Estimated work of one request: a decode step costs more than a prompt token."""
    answers = len(request.form.options) if request.decoding == "choice" else min(request.max_new_tokens, LIKELY_ANSWER)
    return len(request.prompt_ids) + 1.5 * answers


def units(model: str, requests: Iterable[Request], workers: int) -> list[Unit]:
    """The requests of one model in units, the most expensive first. Every request is in one of them."""
    ordered = sorted(requests, key=lambda r: (r.decoding, -_limit_class(r), r.prompt_ids, r.key))
    left = sum(map(cost, ordered))
    made: list[list[Request]] = []
    spent = share = 0.0
    for request in ordered:
        if not made or _kind(made[-1][0]) != _kind(request) or spent >= share or len(made[-1]) == MOST_ROWS:
            made.append([])
            left, spent = left - spent, 0.0
            share = max(LEAST_COST, PART * left / max(1, workers))
        made[-1].append(request)
        spent += cost(request)
    return sorted((Unit(model, tuple(group)) for group in made), key=lambda unit: -unit.cost)


def _kind(request: Request) -> tuple[str, int]:
    return request.decoding, _limit_class(request)


def _limit_class(request: Request) -> int:
    """Answers of a letter and answers of a paragraph do not meet: powers of four."""
    return (request.max_new_tokens.bit_length() + 1) // 2


def saved_share(requests: Sequence[Request]) -> float:
    """The part of the prompts' tokens that need not be computed when equal beginnings are computed once."""
    from ecellm.model.tree import grow
    from ecellm.model.tree import saved_share as share

    prompts = [request.prompt_ids for request in requests]
    return share(prompts, grow(prompts))
