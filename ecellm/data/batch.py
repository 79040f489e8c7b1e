"""Weights of the loss over a global batch, and the tensors of one micro-step, packed or padded. Not the loss itself.

The one decision: weights are worked out over the whole global batch before it is cut, and sum to 1 there. The loss is
then a plain sum of weight times cross-entropy over all ranks and micro-steps, whatever the cut was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

IGNORE = -100
MULTIPLE = 8
"""Lengths are padded to a multiple of this (spec C.4, 6)."""

Weighting = Literal["token", "root", "sample", "task"]
Lengths = npt.NDArray[np.integer]
Sample = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""(prompt ids, answer ids with the end token)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-step of one rank. `labels` stand where the token stands: a decoder model shifts them itself.

    Padded: a sample a row, with a mask. Packed: all samples in one row, one after the other, positions counted from 0
    in each, no mask; `bounds` says where they begin and end.
    """

    input_ids: torch.Tensor  # int64 [batch, seq]
    labels: torch.Tensor  # int64 [batch, seq], or [batch, answer] for an encoder-decoder; -100 is ignored
    loss_weights: torch.Tensor  # float32, shape of labels; 0 wherever the label is ignored
    attention_mask: torch.Tensor | None = None  # int64 [batch, seq]
    position_ids: torch.Tensor | None = None  # int64 [1, seq]
    bounds: torch.Tensor | None = None  # int32 [samples + 1], from 0 to seq
    longest: int = 0
    """Tokens of the longest sample of a packed row."""
    pieces: int = 1
    """In how many pieces the output head is run; the same on every rank, since ranks gather its weights together."""


def token_weights(
    tasks: Lengths, answer_lengths: Lengths, prompt_lengths: Lengths, weighting: Weighting, prompt_loss_weight: float
) -> npt.NDArray[np.float64]:
    """Weight of one prompt token and of one answer token of each sample of a global batch: float64 [n, 2].

    With c_i = answer tokens + prompt_loss_weight * predicted prompt tokens (the first prompt token is never predicted):
    `token` divides by the sum of c over the batch; `root` gives each sample a share in proportion to the root of c_i
    (square averaging, InternVL 2.5, arXiv 2412.05271), shared out over its c_i; `sample` gives each sample 1/n, shared
    out over its c_i; `task` gives each task that is present the same share, each of its samples the same part of it,
    shared out over c_i.
    Over the batch, weights times predicted tokens sum to 1.

    Args:
        tasks: task code of each sample, [n].
        answer_lengths: answer tokens with the end token, at least 1, [n].
        prompt_lengths: prompt tokens, [n].
        weighting: what counts alike.
        prompt_loss_weight: 0 for encoder-decoder models, which do not predict their prompt.

    Raises:
        ValueError: an empty batch, or a sample without an answer token.
    """
    if len(tasks) == 0 or answer_lengths.min() < 1:
        raise ValueError("every sample of a batch needs an answer token, and a batch needs a sample")
    counts = answer_lengths + prompt_loss_weight * np.maximum(prompt_lengths - 1, 0)
    if weighting == "token":
        answer = np.full(len(tasks), 1.0 / counts.sum())
    elif weighting == "root":
        answer = 1.0 / (np.sqrt(counts).sum() * np.sqrt(counts))
    elif weighting == "sample":
        answer = 1.0 / (len(tasks) * counts)
    else:
        _, place, sizes = np.unique(tasks, return_inverse=True, return_counts=True)
        answer = 1.0 / (len(sizes) * sizes[place] * counts)
    return np.stack([answer * prompt_loss_weight, answer], axis=1)  # [n, 2]


def collate(
    samples: Sequence[Sample],
    weights: Sequence[tuple[float, float]] | npt.NDArray[np.float64],
    *,
    pad_id: int,
    encoder_decoder: bool,
    pieces: int = 1,
) -> Batch:
    """Pad the samples of one micro-step on the right.

    Args:
        samples: as `TokenSet.sample` gives them. None at all gives one dummy row of weight 0, so that a rank without
            work still takes part in the collectives.
        weights: rows of `token_weights` for these samples.
        pad_id: id of padding; labels there are ignored.
        encoder_decoder: prompt into the encoder and answer as labels, rather than both in one sequence.
        pieces: see `Batch`.
    """
    if len(samples) != len(weights):
        raise ValueError(f"{len(samples)} samples and {len(weights)} weights")
    labels: list[npt.NDArray[np.generic]]
    scales: list[npt.NDArray[np.generic]]
    if not samples:
        # The mask is 1: a row that attends to nothing is 0/0 in some attention kernels, and NaN times 0 is NaN.
        ids = np.full(MULTIPLE, pad_id, dtype=np.int32)
        inputs = [ids]
        labels, scales = [np.full(MULTIPLE, IGNORE)], [np.zeros(MULTIPLE)]
    elif encoder_decoder:
        inputs = [prompt for prompt, _ in samples]
        labels = [answer for _, answer in samples]
        scales = [np.full(len(answer), weight[1]) for (_, answer), weight in zip(samples, weights, strict=True)]
    else:
        inputs = [np.concatenate(sample) for sample in samples]
        labels, scales = _targets(samples, weights)
    return Batch(
        input_ids=_pad(inputs, pad_id, torch.int64),
        attention_mask=_pad([np.ones_like(ids) for ids in inputs], 0, torch.int64),
        labels=_pad(labels, IGNORE, torch.int64),
        loss_weights=_pad(scales, 0.0, torch.float32),
        pieces=pieces,
    )


def collate_packed(
    samples: Sequence[Sample],
    weights: Sequence[tuple[float, float]] | npt.NDArray[np.float64],
    *,
    pad_id: int,
    pieces: int = 1,
) -> Batch:
    """One row of all samples, one after the other; padding up to a multiple of `MULTIPLE` is a sample of its own.

    Args: as for `collate`; for decoder-only models.
    """
    if len(samples) != len(weights):
        raise ValueError(f"{len(samples)} samples and {len(weights)} weights")
    inputs = [np.concatenate(sample) for sample in samples]
    labels, scales = _targets(samples, weights)
    filler = -sum(len(ids) for ids in inputs) % MULTIPLE if inputs else MULTIPLE
    if filler:
        inputs.append(np.full(filler, pad_id, dtype=np.int32))
        labels.append(np.full(filler, IGNORE, dtype=np.int32))
        scales.append(np.zeros(filler))
    lengths = [len(ids) for ids in inputs]
    return Batch(
        input_ids=torch.from_numpy(np.concatenate(inputs).astype(np.int64))[None],
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64))[None],
        loss_weights=torch.from_numpy(np.concatenate(scales).astype(np.float32))[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        bounds=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
        longest=max(lengths),
        pieces=pieces,
    )


def _targets(
    samples: Sequence[Sample], weights: Sequence[tuple[float, float]] | npt.NDArray[np.float64]
) -> tuple[list[npt.NDArray[np.generic]], list[npt.NDArray[np.generic]]]:
    """Labels and loss weights of each sample of a decoder-only model. The first token is predicted from nothing."""
    labels: list[npt.NDArray[np.generic]] = []
    scales: list[npt.NDArray[np.generic]] = []
    for (prompt, answer), (prompt_weight, answer_weight) in zip(samples, weights, strict=True):
        shown = prompt.copy() if prompt_weight > 0 else np.full_like(prompt, IGNORE)
        shown[:1] = IGNORE
        labels.append(np.concatenate([shown, answer]))
        scales.append(np.repeat([0.0, prompt_weight, answer_weight], [1, len(prompt) - 1, len(answer)]))
    return labels, scales


def _pad(rows: Sequence[npt.NDArray[np.generic]], value: float, dtype: torch.dtype) -> torch.Tensor:
    width = -(-max(len(row) for row in rows) // MULTIPLE) * MULTIPLE
    out = torch.full((len(rows), width), value, dtype=dtype)  # [batch, seq]
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.as_tensor(row.copy(), dtype=dtype)
    return out
