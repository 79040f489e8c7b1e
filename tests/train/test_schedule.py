"""The learning rate rises, peaks, and falls to nearly nothing."""

from __future__ import annotations

import pytest

from ecellm.train.schedule import learning_rate, total_steps


def test_rises_to_the_peak_and_falls_as_a_cosine() -> None:
    rates = [learning_rate(step, 100, 2.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert 0 < rates[99] < 0.01


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert learning_rate(0, 5, 1.0, 0.0) == 1.0


@pytest.mark.parametrize(("most", "steps"), [(0, 30), (7, 7), (99, 30)])
def test_max_steps_only_shortens(most: int, steps: int) -> None:
    assert total_steps(10, 3, most) == steps
