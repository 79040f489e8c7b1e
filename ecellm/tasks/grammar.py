"""The form of an attribute answer as a grammar, for `constrained` decoding (spec B.1).

A list of triples: an attribute that the row asks for, and a value with one of the product's texts as its source, or
`None` for both. The language is the Lark-like one of llguidance. Not enforced: that a value occurs in its text.
"""

from __future__ import annotations

import json

from ecellm.records import Row
from ecellm.tasks.options import literal

MOST_TRIPLES = 8
LONGEST_VALUE = 120
"""In characters."""
_CHARACTER = r'[^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u[0-9a-fA-F]{4}'
"""One character inside a JSON string."""


def triples(row: Row) -> str:
    """The grammar of one row's answers; empty where its input cannot be read."""
    fields = literal(row.input)
    if not isinstance(fields, dict):
        return ""
    names = [name for name in str(fields.get("target attributes", "")).lower().split(" and ") if name]
    sources = [str(key) for key in fields if key != "target attributes"]
    if not names or not sources:
        return ""
    begin, between, end = map(_quoted, ('{"attribute": ', ', "value": ', "}"))
    nothing, then = map(_quoted, ('"None", "source": "None"', ', "source": '))
    quote = _quoted('"')
    value = f"{quote} /({_CHARACTER}){{1,{LONGEST_VALUE}}}/ {quote}"
    lines = [
        f'start: "[" triple (", " triple){{0,{MOST_TRIPLES - 1}}} "]"',
        f"triple: {begin} name {between} rest {end}",
        f"rest: {nothing} | {value} {then} source",
        f"name: {_one_of(names)}",
        f"source: {_one_of(sources)}",
    ]
    return "\n".join(lines) + "\n"


def _one_of(texts: list[str]) -> str:
    return " | ".join(_quoted(json.dumps(text)) for text in dict.fromkeys(texts))


def _quoted(text: str) -> str:
    """A text as a terminal of the grammar."""
    return json.dumps(text)
