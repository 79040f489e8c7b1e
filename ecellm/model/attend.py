"""Attention for packed work: transformers' own model code runs, and each layer's attention is done here.

`ecellm_work` is an attention implementation of transformers that hands query, key and value to the `work` that the
caller passed along with the token ids; `Pieces` (a tree of prompts, packed into one row) and `Step` (one new token for
each live row) are such works. The one decision: everything else in a layer stays the model's own code, so that every
decoder whose attention goes through that interface is served, and none of them is rewritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ecellm.model.slots import Slots

NAME = "ecellm_work"
_OUTSIDE = ("softcap", "s_aux", "position_bias", "sliding_window")
"""What some models ask of an attention beside scaling, and this one does not do."""
BUCKET = 16
"""Live rows whose attention is computed together, padded to the longest of them."""


class NotServed(Exception):
    """A model asks for an attention that this one is not: the caller takes another way."""


class Work(Protocol):
    """What one forward pass does in place of attention."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """[batch, heads, seq, dim] and [batch, kv, seq, dim] twice -> [batch, seq, heads, dim]."""


def register() -> None:
    """Make the name known to transformers; again and again is the same as once."""
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, _attention)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    asked = [name for name in _OUTSIDE if kwargs.get(name) is not None]
    if asked or "work" not in kwargs:
        raise NotServed(f"attention with {asked[0]}" if asked else "keyword arguments do not reach its attention")
    work: Work = kwargs["work"]
    return work.attend(module.layer_idx, query, key, value, kwargs.get("scaling")), None


@dataclass(slots=True)
class Piece:
    """A run of tokens in a packed row, with the keys and values of all that stands before it.

    `parent` is the piece that it follows. Its own context is kept where others follow it (`shared`) or where it will
    be decoded from (`slot`); otherwise it lasts for one layer.
    """

    begin: int
    length: int
    start: int
    parent: Piece | None
    slot: int = -1
    shared: bool = False
    mask: Tensor | None = None
    """[length, start + length], added to the scores; None: it begins its prompt and is plainly causal."""
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)


class Pieces:
    """Work over a packed row [1, seq] of pieces, parents before children."""

    def __init__(self, pieces: Sequence[Piece], slots: Slots | None = None) -> None:
        self.pieces, self.slots = pieces, slots

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        out = query.new_empty((1, query.shape[2], query.shape[1], query.shape[3]))
        for piece in self.pieces:
            here = slice(piece.begin, piece.begin + piece.length)
            keys = self._context(piece, layer, key[0, :, here], piece.keys, "keys")
            values = self._context(piece, layer, value[0, :, here], piece.values, "values")
            found = functional.scaled_dot_product_attention(
                query[:, :, here], keys[None], values[None], attn_mask=piece.mask,
                is_causal=piece.mask is None and piece.length > 1, scale=scale, enable_gqa=True,
            )  # fmt: skip
            out[0, here] = found[0].transpose(0, 1)
        return out

    def _context(self, piece: Piece, layer: int, own: Tensor, kept: dict[int, Tensor], which: str) -> Tensor:
        """[kv, start + length, dim]: what the piece may look at, itself at the end."""
        before: Tensor | None = getattr(piece.parent, which)[layer] if piece.parent else None
        whole: Tensor
        if piece.slot < 0:
            whole = own if before is None else torch.cat((before, own), dim=1)
            if piece.shared:  # a copy of its own: a view would hold the whole packed row
                kept[layer] = whole = whole.clone() if before is None else whole
            return whole
        assert self.slots is not None
        whole = getattr(self.slots, which)(layer, own)[piece.slot, :, : piece.start + piece.length]
        if before is not None:
            whole[:, : piece.start] = before
        whole[:, piece.start :] = own
        return whole


class Step:
    """Work of one decode step: a new token [rows, 1] for each of the first `rows` slots."""

    def __init__(self, slots: Slots, rows: int) -> None:
        self.slots, self.rows = slots, rows
        self.lengths = torch.tensor(slots.lengths[:rows], device=slots.device)
        self.index = torch.arange(rows, device=slots.device)
        self.buckets = [self._bucket(begin) for begin in range(0, rows, BUCKET)]

    def _bucket(self, begin: int) -> tuple[slice, int, Tensor]:
        """Rows, longest context with the new token, and the mask [rows, 1, 1, context] of what lies beyond a row."""
        rows = slice(begin, min(begin + BUCKET, self.rows))
        longest = 1 + max(self.slots.lengths[rows])
        beyond = torch.arange(longest, device=self.slots.device)[None] > self.lengths[rows, None]
        return (
            rows,
            longest,
            torch.zeros_like(beyond, dtype=self.slots.dtype).masked_fill_(beyond, -torch.inf)[:, None, None],
        )

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        keys, values = self.slots.keys(layer, key[0]), self.slots.values(layer, value[0])
        keys[self.index, :, self.lengths] = key[:, :, 0]
        values[self.index, :, self.lengths] = value[:, :, 0]
        batch, heads, _, dim = query.shape
        # The query heads that share a key head stand as its "sequence", so that nothing is repeated.
        grouped = query.view(batch, key.shape[1], heads // key.shape[1], dim)
        out = query.new_empty((batch, 1, heads, dim))
        for rows, longest, mask in self.buckets:
            found = functional.scaled_dot_product_attention(
                grouped[rows], keys[rows, :, :longest], values[rows, :, :longest], attn_mask=mask, scale=scale
            )
            out[rows] = found.reshape(found.shape[0], 1, heads, dim)
        return out
