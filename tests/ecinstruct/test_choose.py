"""The draw of a task's samples: how many, and what becomes of the rest."""

from __future__ import annotations

import pytest

from ecellm.config.schema import Sizes
from tests.ecinstruct.flow import build, recipe
from tests.ecinstruct.records import review

SAME = "the very same words of a review that many people wrote of many things"


@pytest.mark.parametrize("size", [3, 7, 1000])
@pytest.mark.parametrize("ratings", [(5.0,), (5.0, 1.0)])
def test_no_more_samples_than_asked_where_equal_inputs_stay(size: int, ratings: tuple[float, ...]) -> None:
    """With `no_duplicates` off the members of a group that reads the same are taken one by one."""
    records = [("amazon_reviews:Toys", review(f"U{i}", f"P{i}", text=SAME, rating=ratings[i % len(ratings)]))
               for i in range(120)]  # fmt: skip
    how = recipe("SA", mends={"no_duplicates": False, "consistent_labels": False},
                 sizes=Sizes(train=size, val=2, test=2))  # fmt: skip
    built = build("SA", records, how)
    found = {pool: len(built.pool(pool)) for pool in ("train", "val", "test")}
    assert found["val"] == found["test"] == 2
    assert found["train"] == size or size == 1000
    assert 0 < found["train"] <= 116
    assert sum(found.values()) + sum(built.dropped.values()) == 120
    assert "duplicates" not in built.dropped
