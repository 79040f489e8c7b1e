"""Every chance of the build: generators and ranks made from names by a hash, and nothing else.

A draw depends on the names given here and never on a draw before it, the order of files, or Python's hash seed. The
`paper` recipe's own generators are in `replay`.
"""

from __future__ import annotations

import hashlib
import random

import xxhash


def number(*names: object) -> int:
    """A 64-bit number made from the names, by sha256: for what people should not be able to foresee."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def rank(*names: object) -> int:
    """A place in a shuffled order: sort by it."""
    return number(*names)


def unit(*names: object) -> float:
    """A number in [0, 1)."""
    return number(*names) / 2**64


def rng(*names: object) -> random.Random:
    """A generator of its own."""
    return random.Random(number(*names))


def mark(text: str) -> int:
    """64 bits that stand for a text, fast: to bring together what is the same."""
    return xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass"))


def order(seed: int, task: str, text: str) -> int:
    """A sample's place in the drawing order of its task, from its input: what reads the same falls in one place."""
    return xxhash.xxh64_intdigest(f"{task}\x1f{text}".encode("utf-8", "surrogatepass"), seed & (2**64 - 1))
