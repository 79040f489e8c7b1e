"""How requests are cut into batches: one queue over all tasks and settings, so each actor loads its model once.

Requests of similar length and limit share a batch, the most expensive batches go first: a batch that does not fit in
memory shows at once, and no actor is left alone with a long one at the end. The plan changes speed, never answers.
"""

from __future__ import annotations

from collections.abc import Iterable

from ecellm.evaluate.requests import Request

MAX_ROWS = 256
"""Rows in one batch, however short: beyond it a batch gains nothing and a kill loses more."""


def batches(requests: Iterable[Request], batch_tokens: int) -> list[tuple[Request, ...]]:
    """Requests in batches of at most `batch_tokens` padded prompt tokens; a longer prompt makes a batch of its own."""
    ordered = sorted(requests, key=lambda r: (-_limit_class(r), -len(r.prompt_ids), r.key))
    made: list[tuple[Request, ...]] = []
    current: list[Request] = []
    for request in ordered:
        width = max(len(request.prompt_ids), len(current[0].prompt_ids) if current else 0)
        full = len(current) == MAX_ROWS or width * (len(current) + 1) > batch_tokens
        other = bool(current) and _limit_class(current[0]) != _limit_class(request)
        if current and (full or other):
            made.append(tuple(current))
            current = []
        current.append(request)
    if current:
        made.append(tuple(current))
    return sorted(made, key=lambda batch: -_cost(batch))


def _limit_class(request: Request) -> int:
    """Answers of a letter and answers of a paragraph do not meet: powers of four."""
    return (request.max_new_tokens.bit_length() + 1) // 2


def _cost(batch: tuple[Request, ...]) -> int:
    return len(batch) * (len(batch[0].prompt_ids) + batch[0].max_new_tokens)
