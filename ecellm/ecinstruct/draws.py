"""Every chance of the build: generators and ranks made from names by sha256, and nothing else.

A draw depends on the names given here and never on a draw before it, the order of files, or Python's hash seed.
"""

from __future__ import annotations

import hashlib
import random


def number(*names: object) -> int:
    """A 64-bit number made from the names."""
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
