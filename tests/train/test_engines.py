"""ZeRO-3 on real gloo ranks computes what one plain process computes, however the batch is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ecellm.records import World
from tests.train.ranks import run_ranks
from tests.train.toys import ToyTokens, toy_batches, toy_engine, toy_layout, toy_run

STEPS = 3


def curve(
    world: World, kind: str, layout: dict[str, int], t5: bool, uncoalesced: bool = False
) -> list[tuple[float, float]]:
    """(loss, gradient norm) of a few steps."""
    run, tokens = toy_run(), ToyTokens(STEPS * 8)
    engine = toy_engine(kind, run, world, t5=t5)
    if uncoalesced:
        engine._coalesce = False  # type: ignore[attr-defined]
    points = []
    for step in range(STEPS):
        numbers = np.arange(step * 8, step * 8 + 8)
        losses = engine.forward_backward(toy_batches(tokens, numbers, world, toy_layout(t5=t5, **layout)))
        total = engine.sums([float(sum(losses))])[0]
        points.append((total, engine.step(1e-3)))
    return points


def test_plain_does_not_depend_on_the_micro_batch() -> None:
    world = World(rank=0, size=1)
    layouts = (
        {"pack_tokens": 0, "micro": 8},
        {"pack_tokens": 0, "micro": 3},
        {"pack_tokens": 200},
        {"pack_tokens": 17},
    )
    whole, *others = (np.array(curve(world, "plain", layout, False)) for layout in layouts)
    for other in others:
        assert whole == pytest.approx(other, rel=1e-5)
    assert whole[-1, 0] < whole[0, 0] * 1.2
    assert (whole[:, 1] > 0).all()


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    """What two ranks found, all in one start of them: a start costs more than what is tested here."""
    return run_ranks(2, everything)


def everything(world: World) -> dict[str, Any]:
    cut = {"micro": 1, "pack_tokens": 20, "piece_tokens": 5}
    return {
        "llama": curve(world, "zero3", cut, False), "t5": curve(world, "zero3", cut, True),
        "uncoalesced": curve(world, "zero3", {"pack_tokens": 20}, False, True), "bf16": repeated(world, 100),
        "broken": not_a_number(world),
    }  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("case", ["llama", "t5", "uncoalesced"])
def test_zero3_on_two_ranks_equals_plain(ranks: list[dict[str, Any]], case: str) -> None:
    """The third reduces every micro-step, as where whole gradients do not fit."""
    plain = np.array(curve(World(rank=0, size=1), "plain", {"pack_tokens": 0, "micro": 8}, case == "t5"))
    assert ranks[0][case] == ranks[1][case]
    assert np.array(ranks[0][case]) == pytest.approx(plain, rel=1e-5)


def repeated(world: World, times: int) -> float:
    """How far the gradient of so many equal micro-steps is from so many times that of one, relative."""
    engine: Any = toy_engine("zero3", toy_run(), world, bf16=True)
    batches = toy_batches(ToyTokens(8), np.arange(8), world, toy_layout())[:1]
    engine.forward_backward(batches)
    once = engine._zero.grad_partitions_flat_buffer.clone().double()
    engine.step(0.0)
    engine.forward_backward(batches * times)
    many = engine._zero.grad_partitions_flat_buffer.double()
    return float((many - times * once).norm() / (times * once).norm())


@pytest.mark.heavy
def test_micro_steps_of_bf16_are_added_up_in_fp32(ranks: list[dict[str, Any]]) -> None:
    assert max(found["bf16"] for found in ranks) < 1e-5  # a sum in bf16 is off by some percent


def not_a_number(world: World) -> tuple[bool, bool, list[float]]:
    """Whether a broken gradient is seen, and whether the weights stayed."""
    engine = toy_engine("zero3" if world.size > 1 else "plain", toy_run(), world)
    before = [piece.tensor.clone() for piece in engine.local_slices() if piece.kind == "param"]
    batches = toy_batches(ToyTokens(8), np.arange(8), world, toy_layout())
    for batch in batches:
        batch.loss_weights.mul_(float("inf"))
    engine.forward_backward(batches)
    norm = engine.step(1e-3)
    after = [piece.tensor for piece in engine.local_slices() if piece.kind == "param"]
    same = all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    return not np.isfinite(norm), same, engine.sums([1.0])


def test_plain_updates_nothing_on_a_broken_gradient() -> None:
    assert not_a_number(World(rank=0, size=1)) == (True, True, [1.0])


@pytest.mark.heavy
def test_zero3_updates_nothing_on_a_broken_gradient(ranks: list[dict[str, Any]]) -> None:
    assert [found["broken"] for found in ranks] == [(True, True, [2.0])] * 2
