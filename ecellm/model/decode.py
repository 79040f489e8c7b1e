"""What decoding is made of: one question, its answer so far, how a token is chosen, what ends an answer.

Token ids only; no text, no tokenizer, no loop (`packed` and `padded` have those). The one decision: the choice of a row
depends on that row's logits and its own random stream alone; among equally likely tokens the lowest id wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

TEMPERATURE, TOP_P = 0.15, 0.95
"""The paper's sampling (spec C.6)."""


class Guide(Protocol):
    """What a grammar allows after the tokens that it has been told of."""

    def allowed(self) -> Tensor:
        """[vocab] bool: tokens that may come next, end tokens included where the text may end."""

    def advance(self, token: int) -> None:
        """The token was chosen."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: a prompt that is not empty, and at most `limit` new tokens."""

    prompt: tuple[int, ...]
    limit: int
    seed: int | None = None
    """Seed of the paper's sampling; None: the likeliest token."""
    guide: Callable[[], Guide] | None = None
    """Makes the grammar that the answer must keep."""


@dataclass(slots=True)
class Tail:
    """New tokens of one row, without the end token; `stopped` when the model ended by itself."""

    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    guide: Guide | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends an answer beside its limit: an end token, or a text after which nothing counts any more.

    `repeats` is asked only after one of the tokens `hints`, since it has to make text of the whole answer.
    """

    end_ids: frozenset[int]
    hints: frozenset[int] = frozenset()
    repeats: Callable[[Sequence[int]], bool] = lambda tokens: False

    def ends(self, tail: Tail, token: int, ask: Ask) -> bool:
        """Take the chosen token into the answer. Whether the answer is complete."""
        if token in self.end_ids:
            tail.stopped = True
            return True
        tail.tokens.append(token)
        if tail.guide is not None:
            tail.guide.advance(token)
        if token in self.hints and self.repeats(tail.tokens):
            tail.stopped = True
            return True
        return len(tail.tokens) >= ask.limit


@torch.inference_mode()
def pick(logits: Tensor, tails: Sequence[Tail], draws: Sequence[torch.Generator | None]) -> list[int]:
    """A token for each row of logits [rows, vocab]."""
    for row, tail in enumerate(tails):
        if tail.guide is not None:
            allowed = tail.guide.allowed().to(logits.device)
            logits[row, : len(allowed)].masked_fill_(~allowed, -torch.inf)
            logits[row, len(allowed) :] = -torch.inf
    sampled = [row for row, draw in enumerate(draws) if draw is not None]
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    if sampled:
        numbers = _sample(logits[sampled].float(), [draw for draw in draws if draw is not None])
        for row, token in zip(sampled, numbers, strict=True):
            chosen[row] = token
    return chosen


def _sample(logits: Tensor, draws: Sequence[torch.Generator]) -> list[int]:
    """Nucleus sampling: one number from each row's own generator, looked up in its cut distribution."""
    shares, order = torch.softmax(logits / TEMPERATURE, dim=-1).sort(dim=-1, descending=True, stable=True)
    before = shares.cumsum(dim=-1) - shares
    shares = shares.masked_fill(before >= TOP_P, 0.0)
    edges = shares.cumsum(dim=-1)
    numbers = torch.cat([torch.rand(1, generator=draw) for draw in draws]).to(logits.device)
    place = torch.searchsorted(edges, (numbers * edges[:, -1]).unsqueeze(1), right=True)
    place = place.clamp(max=logits.shape[-1] - 1)
    return [int(token) for token in order.gather(1, place).squeeze(1)]
