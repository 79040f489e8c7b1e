"""What an engine is: requests with token ids in, answers out, in any order and as they come.

Engines know no tasks, rows, logs or Ray. The one decision: for an endpoint, whose tokenizer nobody knows, the ids of a
prompt are the bytes of its text, so that every engine is asked in the same way and keyed by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ecellm.evaluate.log import Answer
from ecellm.evaluate.requests import Request


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine has done so far."""

    way: str = ""
    """How it works, in a few words."""
    prompt_tokens: int = 0
    computed_tokens: int = 0
    """Prompt tokens that went through the model; fewer where beginnings are shared, more where there is padding."""


class Engine(Protocol):
    """One model, ready to answer."""

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """An answer for each request, in any order."""

    def facts(self) -> Facts:
        """What it has done so far."""
