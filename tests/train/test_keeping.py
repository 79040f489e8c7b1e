"""Checkpoints in the background: what waits, what fails and is borne, who may publish."""

from __future__ import annotations

import threading
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

import pytest

from ecellm.checkpoint.layout import step_folder
from ecellm.checkpoint.restore import steps, verify
from ecellm.checkpoint.save import LostRace
from ecellm.config.schema import Checkpoint, Train
from ecellm.errors import StorageError
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train import attempts
from ecellm.train.attempts import Fence
from ecellm.train.engine import Engine
from ecellm.train.keeping import _FREE, Keeper, identity, position_of
from tests.train.toys import ToyTokens, toy_engine, toy_run


class Slow(LocalStorage):
    """Uploads wait for a gate, and fail while `broken`."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.gate, self.broken, self.locked = threading.Event(), False, False
        self.gate.set()

    def upload_stream(self, stream: BinaryIO | RawIOBase, key: str) -> None:
        assert self.gate.wait(60)
        if self.broken:
            raise StorageError(f"{key}: no space")
        super().upload_stream(stream, key)

    def delete(self, key: str) -> None:
        if self.locked:
            raise StorageError(f"{key}: AccessDenied")
        super().delete(key)


@pytest.fixture
def storage(tmp_path: Path) -> Slow:
    return Slow(str(tmp_path / "out"))


def keeper(storage: Slow, said: list[str], fence: Callable[[], None] | None = None, **settings: int) -> Keeper:
    run = toy_run(storage.root, checkpoint=Checkpoint(every=1, **settings))
    return Keeper(
        run=run, storage=storage, position=position_of(run, ToyTokens(8)), attempt=1, dtype="float32",
        side={"config.json": b"{}"}, say=said.append, fence=fence,
    )  # fmt: skip


@pytest.fixture
def engine() -> Engine:
    return toy_engine("plain", toy_run(), World(rank=0, size=1))


def test_training_goes_on_while_a_checkpoint_is_on_its_way(storage: Slow, engine: Engine) -> None:
    kept = keeper(storage, [])
    storage.gate.clear()
    kept.save(engine, 1, wait=False)
    for piece in engine.local_slices():
        piece.tensor.zero_()  # training goes on: what was copied must not change
    assert steps(storage) == ([], [])
    storage.gate.set()
    kept.save(engine, 2, wait=True)
    assert steps(storage) == ([1, 2], [])
    assert not verify(storage, step_folder(1)) + verify(storage, step_folder(2))
    assert kept.take_stall() > 0 == kept.take_stall()
    loaded = toy_engine("plain", toy_run(), World(rank=0, size=1))
    storage.delete(f"{step_folder(2)}/COMPLETE")
    assert keeper(storage, []).resume(loaded) == 1
    assert any(piece.tensor.any() for piece in loaded.local_slices() if piece.kind == "param")


def test_one_failed_publish_is_borne_and_told_two_in_a_row_are_not(storage: Slow, engine: Engine) -> None:
    said: list[str] = []
    kept = keeper(storage, said, tolerate=1)
    storage.broken = True
    kept.save(engine, 1, wait=False)
    kept.save(engine, 2, wait=False)
    assert len(said) == 1
    assert "step 1 could not be published, training goes on" in said[0]
    with pytest.raises(StorageError, match="no space"):
        kept.collect(wait=True)


def test_a_success_between_two_failures_counts(storage: Slow, engine: Engine) -> None:
    kept = keeper(storage, [], tolerate=1)
    for step, broken in enumerate((True, False, True, False), 1):
        storage.broken = broken
        kept.save(engine, step, wait=False)
        kept.collect(wait=True)
    assert steps(storage)[0] == [2, 4]


def test_the_last_checkpoint_may_not_fail(storage: Slow, engine: Engine) -> None:
    kept = keeper(storage, [], tolerate=5)
    storage.broken = True
    with pytest.raises(StorageError, match="no space"):
        kept.save(engine, 1, wait=True)


def test_an_attempt_that_was_taken_over_publishes_nothing(storage: Slow, engine: Engine) -> None:
    mine = attempts.begin(storage)
    kept = keeper(storage, [], fence=Fence(storage, mine), tolerate=5)
    kept.save(engine, 1, wait=True)
    attempts.begin(storage)
    with pytest.raises(LostRace, match="attempt 2 has taken over"):
        kept.save(engine, 2, wait=True)
    assert steps(storage)[0] == [1]


def test_an_attempt_that_was_taken_over_clears_nothing(storage: Slow, engine: Engine) -> None:
    """A newer attempt has begun, and published a step, while this one was loading."""
    keeper(storage, []).save(engine, 1, wait=True)
    keeper(storage, []).save(engine, 2, wait=True)
    name = next(key for key, _ in storage.list(step_folder(2)) if key.endswith(".safetensors"))
    storage.write(name, b"broken")  # step 2 is passed over
    old = Fence(storage, attempts.begin(storage))
    attempts.begin(storage)
    with pytest.raises(LostRace, match="attempt 2 has taken over"):
        keeper(storage, [], fence=old).resume(engine)
    assert steps(storage)[0] == [1, 2]
    assert keeper(storage, [], fence=Fence(storage, 2)).resume(engine) == 1
    assert steps(storage)[0] == [1]


def test_old_checkpoints_that_cannot_be_removed_are_told(storage: Slow, engine: Engine) -> None:
    said: list[str] = []
    kept = keeper(storage, said, keep=2, tolerate=0)
    storage.locked = True
    for step in (1, 2, 3):
        kept.save(engine, step, wait=True)
    assert steps(storage)[0] == [1, 2, 3]
    assert len(said) == 1
    assert "old checkpoints could not be removed, training goes on" in said[0]


def test_every_setting_of_training_is_of_the_run_or_free() -> None:
    """A new setting must be put on one side: a checkpoint of another run must not be taken for one of this."""
    of_the_run = {
        "batch_size", "learning_rate", "warmup_ratio", "weight_decay", "betas", "max_grad_norm", "weighting",
        "prompt_loss_weight",
    }  # fmt: skip
    assert set(Train.model_fields) - _FREE == of_the_run
    assert of_the_run & _FREE == set()
    run = toy_run()
    profiled = toy_run(train={"profile_steps": 3})
    position = position_of(run, ToyTokens(8))
    assert identity(run, position) == identity(profiled, position)


def test_leftovers_of_a_killed_writer_are_swept(storage: Slow, engine: Engine) -> None:
    keeper(storage, []).save(engine, 1, wait=True)
    folder = Path(storage.root) / step_folder(1)
    (folder / ".ecellm-tmp-0123").write_bytes(b"half")
    assert keeper(storage, []).resume(engine) == 1
    assert not list(folder.glob(".ecellm-tmp-*"))
