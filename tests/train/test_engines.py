"""ZeRO-3 on real gloo ranks computes what one plain process computes, however the batch is cut."""

from __future__ import annotations

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


@pytest.mark.heavy
@pytest.mark.parametrize("t5", [False, True], ids=["llama", "t5"])
def test_zero3_on_two_ranks_equals_plain(t5: bool) -> None:
    plain = np.array(curve(World(rank=0, size=1), "plain", {"pack_tokens": 0, "micro": 8}, t5))
    ranks = run_ranks(2, curve, "zero3", {"micro": 1, "pack_tokens": 20, "piece_tokens": 5}, t5)
    assert ranks[0] == ranks[1]
    assert np.array(ranks[0]) == pytest.approx(plain, rel=1e-5)


@pytest.mark.heavy
def test_reducing_every_micro_step_gives_the_same() -> None:
    plain = np.array(curve(World(rank=0, size=1), "plain", {"pack_tokens": 0, "micro": 8}, False))
    ranks = run_ranks(2, curve, "zero3", {"pack_tokens": 20}, False, True)
    assert np.array(ranks[0]) == pytest.approx(plain, rel=1e-5)


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
def test_zero3_updates_nothing_on_a_broken_gradient() -> None:
    assert run_ranks(2, not_a_number) == [(True, True, [2.0])] * 2
