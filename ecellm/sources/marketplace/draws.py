"""MADE UP: seeded draws for the invented marketplace, one independent stream for each name.

Not a general random module. One decision to know: a record gets a row of uniform numbers whatever it does with
them, so a change in one record never shifts the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
CHUNK = 4096


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on the seed and the names only, through SHA-256."""
    digest = hashlib.sha256("|".join(str(part) for part in ("made up", seed, *names)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def rows(draw: np.random.Generator, count: int, width: int) -> Iterator[list[float]]:
    """`count` lists of `width` uniform numbers in [0, 1), drawn by chunks so that memory stays bounded."""
    for start in range(0, count, CHUNK):
        yield from draw.random((min(CHUNK, count - start), width)).tolist()


def pick(choices: Sequence[T], uniform: float) -> T:
    """The choice that a uniform number in [0, 1) falls on."""
    return choices[int(uniform * len(choices))]


def split_uniform(uniform: float, parts: int) -> tuple[int, float]:
    """A uniform number as (one of `parts`, a fresh uniform number)."""
    whole = int(uniform * parts)
    return whole, uniform * parts - whole
