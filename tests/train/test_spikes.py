"""A leap is told, a slope is not."""

from __future__ import annotations

import random

from ecellm.train.spikes import Spikes


def test_a_leap_out_of_noise_is_told() -> None:
    draw, spikes = random.Random(1), Spikes("the loss")
    lines = [spikes.see(step, 2.0 * 0.99**step + draw.gauss(0, 0.05)) for step in range(200)]
    assert not any(lines)
    told = spikes.see(200, 3.0)
    assert told.startswith("step 200: the loss 3 leaps")
    assert not spikes.see(201, 0.3)
    assert spikes.count == 1


def test_nothing_is_said_before_there_is_something_to_compare_with() -> None:
    spikes = Spikes("the loss")
    assert not any(spikes.see(step, float(10**step)) for step in range(20))


def test_constant_numbers_leap_by_their_ratio_only() -> None:
    spikes = Spikes("norm")
    for step in range(30):
        spikes.see(step, 1.0)
    assert not spikes.see(30, 1.4)
    assert spikes.see(31, 1.6)
