"""Keys and values of the rows that are being decoded, in memory that is taken once and never copied as a row grows.

A slot holds one row, left-aligned. Live rows fill the first slots without a gap: when a row leaves, the last live one
moves into its place, which costs one copy of one row instead of a copy of the whole cache.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Slots:
    """`rows` slots of `capacity` tokens.

    Memory of a layer is taken when its first key comes, in that key's type and on its device.
    """

    def __init__(self, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.capacity, self.dtype, self.device = rows, capacity, dtype, device
        self.lengths = [0] * rows
        """Tokens in each slot."""
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def keys(self, layer: int, like: Tensor) -> Tensor:
        """[rows, kv, capacity, dim] of a layer; `like` is a key [kv, tokens, dim]."""
        return self._of(self._keys, layer, like)

    def values(self, layer: int, like: Tensor) -> Tensor:
        """[rows, kv, capacity, dim] of a layer."""
        return self._of(self._values, layer, like)

    def _of(self, held: dict[int, Tensor], layer: int, like: Tensor) -> Tensor:
        found = held.get(layer)
        if found is None:
            shape = (self.rows, like.shape[0], self.capacity, like.shape[2])
            # Zeros, because what lies beyond a row is masked by adding minus infinity, and a NaN would survive that.
            found = held[layer] = like.new_zeros(shape)
        return found

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Put the row of one slot into another."""
        length = self.lengths[source]
        for held in (self._keys, self._values):
            for layer in held.values():
                layer[target, :, :length] = layer[source, :, :length]
        self.lengths[target] = length
