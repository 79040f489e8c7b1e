"""Reading a letter out of a reply, as the strict rule does (spec D.3)."""

from __future__ import annotations

import re

_LETTER = re.compile(r"([A-Z])\s*(?:$|[:.)])")


def first_line(text: str) -> str:
    """The stripped text's first line, stripped."""
    return re.split(r"[\n\r]", text.strip(), maxsplit=1)[0].strip()


def letter(text: str, allowed: str) -> str | None:
    """The capital letter that a line gives, if it is one of `allowed`: `A`, `A: text`, `A.`, `A )`."""
    found = _LETTER.match(text)
    return found.group(1) if found and found.group(1) in allowed else None
