"""A tree of prompts cut into packed rows for the model: token ids, positions, pieces, and where logits are wanted.

No model here, only the laying out. Behind a prompt may hang a `Fan`, a little tree of possible answers whose branches
do not see one another: with it, every answer's likelihood comes out of the same forward pass as the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ecellm.model.attend import Piece
from ecellm.model.tree import Node


@dataclass(frozen=True, slots=True)
class Fan:
    """Tokens behind a prompt. `parents[i]` is the token that token i follows, -1 the prompt's last one."""

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()

    @property
    def depths(self) -> tuple[int, ...]:
        """How many tokens stand between the prompt and each one."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent < 0 else found[parent] + 1)
        return tuple(found)


NO_FAN = Fan()


@dataclass(slots=True)
class Chunk:
    """One forward pass: a packed row and, for each wanted logit, whose it is."""

    pieces: list[Piece] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    keep: list[int] = field(default_factory=list)
    """Places in the row whose logits are wanted."""
    owners: list[tuple[int, int]] = field(default_factory=list)
    """For each of `keep`: (prompt, token of its fan), -1 for the prompt's own last token."""


def chunks(
    nodes: Sequence[Node],
    budget: int,
    *,
    slots: Mapping[int, int] | None = None,
    fans: Mapping[int, Fan] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Iterator[Chunk]:
    """The nodes in packed rows of about `budget` tokens; a longer node makes a row of its own.

    Args:
        slots: slot of each prompt that will be decoded.
        fans: possible answers of each prompt that is scored instead.
    """
    used = {node.parent for node in nodes}
    pieces: dict[int, Piece] = {}
    row = Chunk()
    for number, node in enumerate(nodes):
        fan = (fans or {}).get(node.prompt, NO_FAN) if node.prompt >= 0 else NO_FAN
        length = len(node.tokens) + len(fan.tokens)
        if row.ids and len(row.ids) + length > budget:
            yield row
            row = Chunk()
        piece = Piece(
            begin=len(row.ids),
            length=length,
            start=node.start,
            parent=pieces.get(node.parent),
            slot=(slots or {}).get(node.prompt, -1) if node.prompt >= 0 else -1,
            shared=number in used,
            mask=mask_of(node.start, len(node.tokens), fan, dtype, device),
        )
        for gone in [other for other in pieces if other != node.parent and not _is_above(nodes, other, number)]:
            del pieces[gone]
        if number in used:
            pieces[number] = piece
        _add(row, piece, node, fan)
    if row.ids:
        yield row


def _is_above(nodes: Sequence[Node], other: int, number: int) -> bool:
    while number >= 0 and number != other:
        number = nodes[number].parent
    return number == other


def _add(row: Chunk, piece: Piece, node: Node, fan: Fan) -> None:
    row.pieces.append(piece)
    if node.prompt >= 0:
        last = len(row.ids) + len(node.tokens) - 1
        wanted = range(-1, len(fan.tokens))
        row.keep.extend(last + 1 + token for token in wanted)
        row.owners.extend((node.prompt, token) for token in wanted)
    end = node.start + len(node.tokens)
    row.ids.extend((*node.tokens, *fan.tokens))
    row.positions.extend((*range(node.start, end), *(end + depth for depth in fan.depths)))


def mask_of(start: int, own: int, fan: Fan, dtype: torch.dtype, device: torch.device | str) -> Tensor | None:
    """[own + fan, start + own + fan] with 0 where a token may look and minus infinity elsewhere; None: plainly causal.

    >>> mask_of(1, 1, Fan((7, 8), (-1, -1)), torch.float32, "cpu").isfinite().int().tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    rows = own + len(fan.tokens)
    if not fan.tokens and (start == 0 or rows == 1):
        return None
    sees = torch.ones((rows, start + rows), dtype=torch.bool).tril(start)
    for token, parent in enumerate(fan.parents):
        line = sees[own + token]
        line[start + own :] = sees[own + parent, start + own :] if parent >= 0 else False
        line[start + own + token] = True
    return torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, -torch.inf).to(device)
