"""The authors' draws (spec B.0), from NumPy's and Python's old generators: for the `paper` recipe only.

pandas' `sample(random_state=s)` takes the front of `RandomState(s).permutation(n)`; scikit-learn's `train_test_split`
permutes in the same way and takes the test part first. Where the authors drew from a set, whose order nobody can know,
our order goes in first: sorted by text or by hash.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def permutation(n: int, seed: int) -> Indices:
    """Row numbers in the order of pandas' `sample(frac=1, random_state=seed)`."""
    return np.random.RandomState(seed % 2**32).permutation(n).astype(np.int64)


def sample(n: int, size: int, seed: int) -> Indices:
    """Row numbers of pandas' `sample(n=size, random_state=seed)`; all of them, shuffled, where there are fewer."""
    return permutation(n, seed)[:size]


def split(n: int, test_share: float, seed: int) -> tuple[Indices, Indices]:
    """(train, test) row numbers of scikit-learn's `train_test_split(test_size=test_share, random_state=seed)`."""
    order, held = permutation(n, seed), math.ceil(n * test_share)
    return order[held:], order[:held]


def split_three(n: int, seed: int) -> dict[str, Indices]:
    """80/10/10: a fifth is split off, and halved with the same seed."""
    train, rest = split(n, 0.2, seed)
    val, test = split(len(rest), 0.5, seed)
    return {"train": train, "val": rest[val], "test": rest[test]}
