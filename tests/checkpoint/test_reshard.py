"""Saved by two ZeRO-3 ranks, gone on with by one, two and three: the next losses are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecellm.checkpoint.layout import Position, step_folder
from ecellm.checkpoint.restore import read_manifest, read_newest
from ecellm.checkpoint.save import Head, save
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train.engine import Engine
from tests.train.ranks import run_ranks
from tests.train.toys import ToyTokens, toy_batches, toy_engine, toy_layout, toy_run

SAVED, END = 2, 5
BATCH = 12


def train(engine: Engine, first: int, last: int) -> list[float]:
    """Loss sums of steps `first` to `last`."""
    tokens, losses = ToyTokens(END * BATCH), []
    for step in range(first, last):
        numbers = np.arange(step * BATCH, (step + 1) * BATCH)
        found = engine.forward_backward(toy_batches(tokens, numbers, engine.world, toy_layout()))
        losses.append(engine.sums([float(sum(found))])[0])
        engine.step(1e-2)
    return losses


def save_and_go_on(world: World, out: str) -> list[float]:
    storage, engine = LocalStorage(out), toy_engine("zero3", toy_run(), world)
    train(engine, 0, SAVED)
    parameters, tied = engine.parameters()
    head = Head(
        identity="same", attempt=1, position=Position(fingerprint="f", seed=1, samples=8, batch_size=BATCH),
        dtype="float32", parameters=parameters, tied=tied, lora=None,
    )  # fmt: skip
    save(storage, head, step=SAVED, slices=engine.local_slices(), side={}, world=world, gather=engine.gather)
    return train(engine, SAVED, END)


def load_and_go_on(world: World, out: str, kind: str) -> list[float]:
    storage, engine = LocalStorage(out), toy_engine(kind, toy_run(), world)
    # Steps before the load: what they gathered, moved and counted must not show after it.
    train(engine, 0, 1)
    found = read_newest(
        storage, list(engine.owned()), fits=lambda manifest: None, world=world, gather=engine.gather, say=print
    )  # fmt: skip
    assert found is not None
    manifest, held = found
    engine.load_slices(lambda name, kind, start, length: held[name, kind], manifest.step)
    return train(engine, SAVED, END)


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_any_world_size_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    out = str(tmp_path)
    wanted = run_ranks(2, save_and_go_on, out)[0]
    assert read_manifest(LocalStorage(out), step_folder(SAVED)).world_size == 2
    assert run_ranks(2, load_and_go_on, out, "zero3") == [wanted] * 2
    assert run_ranks(3, load_and_go_on, out, "zero3")[2] == pytest.approx(wanted, rel=1e-6)
    assert load_and_go_on(World(rank=0, size=1), out, "plain") == pytest.approx(wanted, rel=1e-6)
