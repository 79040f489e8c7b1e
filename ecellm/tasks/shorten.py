"""Making an input shorter without breaking its form: the longest texts lose words first, the answer never does."""

from __future__ import annotations

import ast
import json
from typing import Any


def plain(text: str, words: int) -> str:
    """The first `words` words of a text that has more; others unchanged."""
    parts = text.split()
    return " ".join(parts[:words]) if len(parts) > words else text


def structured(text: str, words: int) -> str:
    """A JSON (or Python list) input whose strings together have at most about `words` words.

    What is neither, or nested beyond reason, is cut as plain text.
    """
    try:
        return json.dumps(_fit(_container(json.loads(text)), words))
    except (ValueError, RecursionError):
        pass
    try:
        return str(_fit(_container(ast.literal_eval(text)), words))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return plain(text, words)


def _container(value: Any) -> Any:
    if not isinstance(value, dict | list):
        raise ValueError("no list and no object")
    return value


def _fit(value: Any, words: int) -> Any:
    lengths = sorted(len(text.split()) for text in _strings(value))
    if sum(lengths) <= words:
        return value
    cap, left, spent = 1, len(lengths), 0
    for length in lengths:  # the largest cap that fits: short texts stay whole, long ones share the rest
        if spent + length * left > words:
            cap = max(1, (words - spent) // left)
            break
        spent, left = spent + length, left - 1
    return _cap(value, cap)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _strings(child)]


def _cap(value: Any, cap: int) -> Any:
    if isinstance(value, str):
        return plain(value, cap)
    if isinstance(value, list):
        return [_cap(child, cap) for child in value]
    return {key: _cap(child, cap) for key, child in value.items()} if isinstance(value, dict) else value
