"""Documents for questions whose candidate snippets were judged one by one: with an answer, and without.

A judged question gives up to two documents of the same number of snippets: one holds a snippet that answers it among
irrelevant ones, one holds irrelevant ones only. So neither the question nor the number of snippets tells the two apart.
Long snippets are not shown: a document that is cut later could lose its answer.
Pure: the draw is a function of the question's id, the same on every machine and in every run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

SNIPPETS = 4
"""Most snippets in one document: about 55 words, the length at which a small model still trains on a CPU."""
LONGEST = 40
"""Most words of one snippet; nine in ten have fewer."""

Item = TypeVar("Item")


def ranked(key: str, items: Sequence[Item]) -> list[Item]:
    """`items` in an order that is random but a function of `key` and of each item's text."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{key}\0{item}".encode()).digest())


def with_answer(key: str, answering: str, others: Sequence[str]) -> tuple[str, ...]:
    """The answering snippet at a random place among at most SNIPPETS - 1 of `others`.

    One snippet fewer of `others` is taken than there are, so that `without_answer` can be as long.
    """
    size = min(SNIPPETS, len(others)) or 1
    chosen = ranked(key, others)[: size - 1]
    return tuple(ranked(key + "/place", [answering, *chosen]))


def without_answer(key: str, others: Sequence[str]) -> tuple[str, ...]:
    """At most SNIPPETS of `others`, beginning from the end that `with_answer` leaves."""
    return tuple(ranked(key + "/place", ranked(key, others)[-SNIPPETS:]))


def short(text: str) -> bool:
    """Whether a snippet may be shown."""
    return len(text.split()) <= LONGEST


def tidy(text: str) -> str:
    """One line, single spaces."""
    return " ".join(text.split())
