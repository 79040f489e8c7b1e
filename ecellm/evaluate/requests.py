"""What is asked of a model: one request for each different question, named by its content.

The key is a digest of the model, the prompt's token ids and the decoding with all that it depends on, so an answer in a
log belongs to this question and to no other, and two rows with the same question are asked once. No model and no files
here.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

PAPER_NEW_TOKENS = 100
"""New tokens under the paper's decoding, whatever the task (spec C.6)."""
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """How a row may be answered beside freely: `options` to score, with their tokens, or a `grammar` to keep."""

    options: tuple[str, ...] = ()
    tokens: tuple[Tokens, ...] = ()
    ranked: bool = False
    """The options are orders of lettered items, and the answer is the order of highest expected gain."""
    grammar: str = ""


FREE = Form()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to one model."""

    key: str
    prompt_sha256: str
    prompt_ids: Tokens
    decoding: str
    max_new_tokens: int
    seed: int | None
    """Seed of its sampling; None: no chance in it."""
    form: Form = FREE


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A row's question: which row of which group waits for the answer to `key`."""

    setting: str
    task: str
    """Task id, as `PM`."""
    id: str
    key: str
    prompt_sha256: str
    decoding: str = "greedy"
    end: str = ""
    """What follows its answer where a model goes on with a prompt of its own."""


def prompt_digest(prompt_ids: Sequence[int]) -> str:
    """SHA-256 of the token ids as little-endian 32-bit integers."""
    ids = array("i", prompt_ids)
    if array("i", [1]).tobytes()[0] != 1:
        ids.byteswap()
    return hashlib.sha256(ids.tobytes()).hexdigest()


def request(
    prompt_ids: Sequence[int], *, model: str, decoding: str, max_new_tokens: int, seed: int, form: Form = FREE
) -> Request:
    """The request for one prompt.

    Args:
        model: digest of the model folder.
        decoding: the paper's asks for 100 new tokens everywhere; `choice` and `constrained` need a form.
        seed: seed of the run; each request draws its own from it.
    """
    limit = PAPER_NEW_TOKENS if decoding == "paper" else max_new_tokens
    digest = prompt_digest(prompt_ids)
    name = {
        "paper": f"paper/{limit}/{seed}",
        "choice": f"choice/{'gain' if form.ranked else 'mean'}/{form.tokens}",
        "constrained": f"constrained/{limit}/{hashlib.sha256(form.grammar.encode()).hexdigest()}",
    }.get(decoding, f"{decoding}/{limit}")
    key = hashlib.sha256(f"{model}\n{digest}\n{name}".encode()).hexdigest()
    return Request(
        key=key,
        prompt_sha256=digest,
        prompt_ids=tuple(prompt_ids),
        decoding=decoding,
        max_new_tokens=limit,
        seed=int(key[:15], 16) if decoding == "paper" else None,
        form=form,
    )
