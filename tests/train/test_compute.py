"""Arithmetic of small models, counted by hand.

A Llama of width 32: q and o 32 x 32, k and v 32 x 16, three matrices of 32 x 64 and two norms make 9280 weights a
layer; one norm after the last. A T5 of width 32: four matrices of 32 x 32 for each attention, two of 32 x 64, a norm
before each, 32 x 4 biases of positions and one norm in each half. The head has 97 x 32 weights in both.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ecellm.config.schema import Lora
from ecellm.train.compute import Arithmetic, arithmetic
from ecellm.train.lora import add_adapters
from tests.train.toys import toy_llama, toy_t5

LENGTH, SHARE = 10.0, 0.25
HEAD = 97 * 32
LLAMA = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32) + 32
ATTENTION, DENSE, EXTRA = 4 * 32 * 32 + 32, 2 * 32 * 64 + 32, 32 * 4 + 32
ENCODER = 2 * (ATTENTION + DENSE) + EXTRA
DECODER = 2 * (2 * ATTENTION + DENSE) + EXTRA
REACH = 12 * 2 * 32 * LENGTH / 2
"""Two layers of width 32, each token with half its sample."""


def counted(model: Any) -> float:
    return arithmetic(model, torch.device("cpu"), mean_length=LENGTH, head_share=SHARE).flops_per_token


@pytest.mark.parametrize("tied", [True, False])
def test_llama(tied: bool) -> None:
    assert LLAMA == 2 * 9280 + 32
    assert counted(toy_llama(tied=tied)) == pytest.approx(6 * (LLAMA + SHARE * HEAD) + REACH)


def test_llama_with_adapters() -> None:
    model = add_adapters(toy_llama(tied=False), Lora(rank=2, targets=("q_proj", "lm_head")))
    adapters = 2 * 2 * (32 + 32)  # two layers, rank 2, in and out
    head = 2 * (32 + 97)
    wanted = 4 * (LLAMA + SHARE * HEAD) + 6 * (adapters + SHARE * head) + REACH
    assert counted(model) == pytest.approx(wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_the_halves_of_a_t5_count_for_their_tokens(tied: bool) -> None:
    wanted = 6 * ((1 - SHARE) * ENCODER + SHARE * (DECODER + HEAD)) + REACH
    assert counted(toy_t5(tied=tied)) == pytest.approx(wanted)


def test_so_they_do_with_adapters() -> None:
    model = add_adapters(toy_t5(tied=True), Lora(rank=2, targets=("q", "wo")))
    attention, dense = 2 * (32 + 32), 2 * (64 + 32)
    encoder, decoder = 2 * (attention + dense), 2 * (2 * attention + dense)
    frozen = (1 - SHARE) * ENCODER + SHARE * (DECODER + HEAD)
    assert counted(model) == pytest.approx(4 * frozen + 6 * ((1 - SHARE) * encoder + SHARE * decoder) + REACH)


def test_utilisation_is_a_share_of_all_workers() -> None:
    assert Arithmetic(2e9, 1e12).utilisation(1000.0, 4) == pytest.approx(0.5)
    assert Arithmetic(2e9, None).utilisation(1000.0, 4) is None
