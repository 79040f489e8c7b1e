"""From the numbers of a global batch to one rank's micro-steps: dealt, weighted, packed or padded. No model here.

The one decision: the whole plan is worked out on every rank from lengths alone. So ranks agree, without a word between
them, on how many micro-steps there are and in how many pieces the output head runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ecellm.data.batch import Batch, Sample, Weighting, collate, collate_packed, token_weights
from ecellm.data.order import Numbers, cut, pack
from ecellm.records import World

Ints = npt.NDArray[np.int32]


class Samples(Protocol):
    """What is needed of a `TokenSet`."""

    @property
    def prompt_lengths(self) -> Ints: ...
    @property
    def answer_lengths(self) -> Ints: ...
    @property
    def tasks(self) -> Ints: ...
    def sample(self, i: int) -> Sample: ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a rank's share of a global batch is laid out."""

    encoder_decoder: bool
    pad_id: int
    micro_batch_size: int
    """Most samples of a padded micro-step."""
    pack_tokens: int = 0
    """Most tokens of a packed row; 0: padded."""
    weighting: Weighting = "token"
    prompt_loss_weight: float = 0.0
    piece_tokens: int = 0
    """Most positions that go through the output head at once; 0: all."""

    def deal(self, tokens: Samples, numbers: Numbers, world_size: int) -> list[list[Numbers]]:
        """`[rank][micro_step]` -> sample numbers."""
        lengths = tokens.prompt_lengths + tokens.answer_lengths
        if self.pack_tokens and not self.encoder_decoder:
            return pack(numbers, lengths, world_size, self.pack_tokens)
        return cut(numbers, lengths, world_size, self.micro_batch_size)

    def weights(self, tokens: Samples, numbers: Numbers) -> npt.NDArray[np.float64]:
        """Weights of the whole global batch, float64 [n, 2] (`token_weights`)."""
        share = 0.0 if self.encoder_decoder else self.prompt_loss_weight
        return token_weights(
            tokens.tasks[numbers], tokens.answer_lengths[numbers], tokens.prompt_lengths[numbers], self.weighting, share
        )

    def micro_steps(
        self,
        tokens: Samples,
        numbers: Numbers,
        world: World,
        dealt: Sequence[Sequence[Numbers]],
        weights: npt.NDArray[np.float64],
    ) -> list[Batch]:
        """One rank's batches of the dealt numbers; `weights` are those of `numbers`, row by row."""
        place = {int(number): row for row, number in enumerate(numbers)}
        packed = bool(self.pack_tokens) and not self.encoder_decoder
        batches = []
        for step, mine in enumerate(dealt[world.rank]):
            samples = [tokens.sample(int(i)) for i in mine]
            scales = weights[[place[int(i)] for i in mine]]
            pieces = self._pieces(tokens, [rank[step] for rank in dealt])
            if packed:
                batches.append(collate_packed(samples, scales, pad_id=self.pad_id, pieces=pieces))
            else:
                encoder_decoder = self.encoder_decoder
                batches.append(
                    collate(samples, scales, pad_id=self.pad_id, encoder_decoder=encoder_decoder, pieces=pieces)
                )
        return batches

    def _pieces(self, tokens: Samples, rows: Sequence[Numbers]) -> int:
        """Pieces of the head that the fullest rank needs."""
        if not self.piece_tokens:
            return 1
        counted = tokens.answer_lengths
        if self.prompt_loss_weight and not self.encoder_decoder:
            counted = counted + tokens.prompt_lengths
        return max(1, max(-(-int(counted[row].sum()) // self.piece_tokens) for row in rows))
