"""Nothing goes before enough newer whole checkpoints stand."""

from __future__ import annotations

import pytest

from ecellm.checkpoint.retain import to_remove


@pytest.mark.parametrize(
    ("whole", "half", "keep", "going"),
    [
        ([], [10], 2, []),
        ([10], [5, 20], 2, [5]),
        ([10, 20], [], 2, []),
        ([30, 10, 20], [15, 40], 2, [10, 15]),
        ([10, 20, 30, 40], [], 2, [10, 20]),
    ],
)
def test_what_may_go(whole: list[int], half: list[int], keep: int, going: list[int]) -> None:
    assert to_remove(whole, half, keep) == going
