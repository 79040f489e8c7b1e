"""What rules without a model read out of a row: its products, document, attributes. Shared by all of them.

A row whose input has another form than expected gives empty parts, never an error: a rule then answers as best it can.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ecellm.records import Row

Rule = Callable[[Sequence[Row], Sequence[Row], int], list[str]]
"""(training rows, test rows, seed) -> one reply for each test row."""


def fields(row: Row) -> dict[str, Any]:
    """The input's fields; empty where it is no JSON object."""
    found = decoded(row.input)
    return found if isinstance(found, dict) else {}


def decoded(text: str) -> Any:
    """The JSON value of a text, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def listed(row: Row) -> list[str]:
    """A ranking row's products as they are listed, `A: title`."""
    return [str(text) for text in fields(row).get("product list", ())]


def letters(row: Row) -> list[str]:
    """The letters of a ranking row's products, in the given order."""
    return [text[:1] for text in listed(row)] or ["A", "B"]


def document(row: Row) -> list[str]:
    """The review snippets of a question; one where the document is one text."""
    found = fields(row).get("document", ())
    return [found] if isinstance(found, str) else [str(text) for text in found]


def targets(row: Row) -> list[str]:
    """Names of the attributes that an extraction row asks for."""
    return [name.lower() for name in str(fields(row).get("target attributes", "")).split(" and ")]


def absent(name: str) -> dict[str, str]:
    """The triple that says that an attribute is not stated."""
    return {"attribute": name, "value": "None", "source": "None"}
