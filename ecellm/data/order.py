"""Which samples an optimizer step sees, and how they are dealt to ranks. No state, no torch, no files.

The one decision: the order is a function of (data fingerprint, seed, epoch, step), so resuming is a number and costs
the same at any step, and a run that goes on with other hardware sees exactly the samples that it would have seen.
The permutation sorts raw words of a counter-based generator, which unlike numpy's own shuffle never changes between
numpy versions.
"""

from __future__ import annotations

import hashlib
import heapq
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def steps_per_epoch(n: int, batch: int) -> int:
    """Optimizer steps that `n` samples give; the last batch of an epoch may be smaller.

    Raises:
        ValueError: `n` or `batch` is not positive.
    """
    if n < 1 or batch < 1:
        raise ValueError(f"an epoch needs samples and a batch size, not {n} and {batch}")
    return -(-n // batch)


def batch_at(fingerprint: str, seed: int, n: int, batch: int, step: int) -> Numbers:
    """Sample numbers of optimizer step `step`, counted from 0 over all epochs: int64 [<= batch], read-only.

    Raises:
        ValueError: `step` is negative, or `n` or `batch` is not positive.
    """
    steps = steps_per_epoch(n, batch)
    if step < 0:
        raise ValueError(f"steps count from 0, not {step}")
    epoch, within = divmod(step, steps)
    return permutation(fingerprint, seed, n, epoch)[within * batch : (within + 1) * batch]


@lru_cache(maxsize=2)
def permutation(fingerprint: str, seed: int, n: int, epoch: int) -> Numbers:
    """The order of the `n` samples in `epoch`: int64 [n], read-only."""
    digest = hashlib.sha256(f"order\0{fingerprint}\0{seed}\0{epoch}\0{n}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(n)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def cut(batch: Numbers, lengths: npt.NDArray[np.integer], world_size: int, micro: int) -> list[list[Numbers]]:
    """Deal a global batch to ranks and micro-steps, so that all ranks work on similar lengths at the same time.

    Args:
        batch: sample numbers of one optimizer step.
        lengths: tokens of every sample of the set (indexed by sample number).
        world_size: ranks.
        micro: most samples of one micro-step on one rank.

    Returns:
        `[rank][micro_step]` -> sample numbers. Every rank has the same number of micro-steps, each of at most `micro`
        samples; some may be empty. Longest first, so that a batch too large for memory fails at once. All of it
        together is `batch`, each sample once, at any world size.
    """
    if world_size < 1 or micro < 1:
        raise ValueError(f"dealing needs ranks and a micro batch size, not {world_size} and {micro}")
    by_length = batch[np.lexsort((batch, -lengths[batch].astype(np.int64)))]
    groups = np.array_split(by_length, max(1, -(-len(batch) // (world_size * micro))))
    return [[group[rank::world_size] for group in groups] for rank in range(world_size)]


def pack(batch: Numbers, lengths: npt.NDArray[np.integer], world_size: int, budget: int) -> list[list[Numbers]]:
    """Deal a global batch to ranks and micro-steps as rows of at most `budget` tokens, as few and as even as they go.

    Longest first into the emptiest row (Graham's LPT rule, 1969), with one more micro-step where that does not fit.
    Rows of one micro-step have similar lengths, since ranks wait for each other there.

    Args:
        batch: sample numbers of one optimizer step.
        lengths: tokens of every sample of the set (indexed by sample number).
        world_size: ranks.
        budget: most tokens of one row; a longer sample has a row of its own.

    Returns:
        `[rank][micro_step]` -> sample numbers of one row, longest first. Every rank has the same number of micro-steps;
        some may be empty. All of it together is `batch`, each sample once, at any world size.
    """
    if world_size < 1 or budget < 1:
        raise ValueError(f"packing needs ranks and a budget of tokens, not {world_size} and {budget}")
    ordered = batch[np.lexsort((batch, -lengths[batch].astype(np.int64)))]
    sizes = [min(int(size), budget) for size in lengths[ordered]]
    rounds = max(1, -(-sum(sizes) // (world_size * budget)))
    while (rows := _rows(sizes, rounds * world_size, budget)) is None:
        rounds += 1
    rows.sort(key=lambda row: (-sum(sizes[i] for i in row), row))
    dealt: list[list[Numbers]] = [[] for _ in range(world_size)]
    for step in range(rounds):
        mine = rows[step * world_size : (step + 1) * world_size]
        for rank, row in enumerate(reversed(mine) if step % 2 else mine):
            dealt[rank].append(ordered[row] if row else ordered[:0])
    return dealt


def _rows(sizes: list[int], count: int, budget: int) -> list[list[int]] | None:
    """Places of `sizes` in `count` rows; None where they do not fit so."""
    rows: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, row) for row in range(count)]
    for place, size in enumerate(sizes):
        filled, row = emptiest[0]
        if filled + size > budget:
            return None
        rows[row].append(place)
        heapq.heapreplace(emptiest, (filled + size, row))
    return rows
