"""What a row may be answered with: its possible answers, as texts in the form that the rows' outputs have.

For `choice` decoding, which scores them, and for baselines, which pick among them. A row whose options cannot be read
has none, and is then answered like a task without options.
"""

from __future__ import annotations

import ast
import json
import re
from itertools import permutations
from typing import Any

from ecellm.records import Row

MOST_RANKED = 5
"""Longest list whose orders are all scored: 120 of them."""
_LETTERED = re.compile(r"\s*([A-Z])\s*:")


def none(row: Row) -> tuple[str, ...]:
    """A task without options."""
    return ()


def yes_no(row: Row) -> tuple[str, ...]:
    """The binary tasks."""
    return ("yes", "no")


def texts(row: Row) -> tuple[str, ...]:
    """Whole options, as `A: very positive`."""
    found = lettered(row.options)
    return tuple(found) if len(found) > 1 else ()


def letters(row: Row) -> tuple[str, ...]:
    """The letters of the options alone."""
    return tuple(text.strip()[:1] for text in texts(row))


def orders(row: Row) -> tuple[str, ...]:
    """Every order of the products of a ranking row, as `B,A,C`; none where there are too many."""
    products = listed_products(row)
    if not 2 <= len(products) <= MOST_RANKED:
        return ()
    return tuple(",".join(order) for order in permutations(text.strip()[:1] for text in products))


def listed_products(row: Row) -> list[str]:
    """The products of a ranking row as they are listed, `A: title`."""
    value = literal(row.input)
    return lettered(value.get("product list")) if isinstance(value, dict) else []


def lettered(value: Any) -> list[str]:
    """The entries of a list (or of the text of one) that all begin with their letter and a colon; else nothing."""
    found = literal(value) if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(entry, str) and _LETTERED.match(entry) for entry in found):
        return []
    named = [entry.strip()[:1] for entry in found]
    return found if named == [chr(ord("A") + i) for i in range(len(named))] else []


def literal(text: str) -> Any:
    """The JSON value or Python literal of a text, or None: published rows have both forms."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
