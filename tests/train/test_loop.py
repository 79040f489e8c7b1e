"""The loop on the plain engine: resuming, stopping, broken numbers, metrics."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ecellm.checkpoint.layout import rank_file, step_folder
from ecellm.checkpoint.restore import steps, verify
from ecellm.errors import CheckpointError, ConfigError, DataError, EcellmError, Stopped, StorageError
from ecellm.records import World
from ecellm.storage.base import Storage
from ecellm.storage.local import LocalStorage
from ecellm.train import metrics
from ecellm.train.board import Order, Status
from ecellm.train.compute import Arithmetic
from ecellm.train.keeping import Keeper, position_of
from ecellm.train.loop import Job, fit
from ecellm.train.metrics import KEY, kept_lines
from tests.train.toys import ToyTokens, toy_engine, toy_layout, toy_run


@dataclass
class Watcher:
    """Hooks that remember; asks to stop after step `stop_at`."""

    stop_at: int = 0
    attempt: int = 1
    said: list[str] = field(default_factory=list)
    seen: list[Status] = field(default_factory=list)
    places: list[tuple[int, str]] = field(default_factory=list)
    began: int = -1

    def order(self) -> Order:
        return Order.STOP if self.stop_at and len(self.seen) + 1 >= self.stop_at else Order.GO

    def at(self, step: int, phase: str) -> None:
        self.places.append((step, phase))

    def update(self, status: Status) -> None:
        self.seen.append(status)

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, step: int) -> None:
        self.began = step

    def after_step(self, step: int) -> None:
        """Nothing."""


def go(storage: Storage, hooks: Watcher, *, tokens: Any = None, **train: Any) -> EcellmError | None:
    run = toy_run(storage.root, train=train)
    tokens = tokens or ToyTokens(40)
    job = Job(
        run=run, storage=storage, engine=toy_engine("plain", run, World(rank=0, size=1)), train=tokens,
        val=ToyTokens(6), layout=toy_layout(), hooks=hooks, arithmetic=Arithmetic(1e6, 1e9),
        keeper=Keeper(
            run=run, storage=storage, position=position_of(run, tokens), attempt=hooks.attempt, dtype="float32",
            side={"config.json": b"{}"}, say=hooks.say,
        ),
    )  # fmt: skip
    return fit(job)


def losses(storage: Storage) -> list[float]:
    return [json.loads(line)["loss"] for line in storage.read("metrics.jsonl").splitlines()]


def test_trains_to_the_end_and_learns(tmp_path: Path) -> None:
    storage, hooks = LocalStorage(str(tmp_path)), Watcher()
    assert go(storage, hooks, epochs=4, learning_rate=5e-3) is None
    lines = [json.loads(line) for line in storage.read("metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert {"epoch", "loss", "grad_norm", "lr", "tokens", "tokens_per_second", "mfu", "seconds"} <= set(lines[0])
    assert [line["step"] for line in lines if "val_loss" in line] == [5, 10, 15, 20]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert steps(storage) == ([16, 20], [])
    assert hooks.seen[-1].step == hooks.seen[-1].total == 20
    assert any("tfevents" in key for key, _ in storage.list("tensorboard"))


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, parts = LocalStorage(str(tmp_path / "a")), LocalStorage(str(tmp_path / "b"))
    assert go(whole, Watcher()) is None
    stopped = go(parts, Watcher(stop_at=3))
    assert isinstance(stopped, Stopped)
    assert "step 3 of 10" in str(stopped)
    assert steps(parts)[0] == [3]
    hooks = Watcher(attempt=2)
    assert go(parts, hooks) is None
    assert hooks.began == 3
    assert losses(parts) == losses(whole)


@pytest.mark.parametrize(("broken", "began"), [((10,), 8), ((8, 10), 0)])
def test_a_broken_checkpoint_is_made_again_by_the_next_attempt(
    tmp_path: Path, broken: tuple[int, ...], began: int
) -> None:
    storage, hooks = LocalStorage(str(tmp_path)), Watcher(attempt=2)
    assert go(storage, Watcher()) is None
    for step in broken:
        storage.delete(f"{step_folder(step)}/{rank_file(1, 0, 1)}")
    assert go(storage, hooks) is None
    assert hooks.began == began
    assert steps(storage)[0] == [8, 10]
    assert not verify(storage, step_folder(8)) + verify(storage, step_folder(10))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    go(storage, Watcher(stop_at=1))
    with pytest.raises(CheckpointError, match="other settings"):
        go(storage, Watcher(), learning_rate=2e-3)


def test_a_longer_run_goes_on_from_the_shorter_one(tmp_path: Path) -> None:
    storage, hooks = LocalStorage(str(tmp_path)), Watcher()
    go(storage, Watcher(), max_steps=4)
    assert go(storage, hooks, max_steps=6, micro_batch_size=4) is None
    assert hooks.began == 4
    assert len(losses(storage)) == 6


def test_a_broken_number_stops_before_the_update_and_names_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecellm.data import microsteps

    def heavy(*args: Any, **kwargs: Any) -> Any:
        return np.where(real_weights(*args, **kwargs) > 0, np.inf, 0.0)

    real_weights = microsteps.token_weights
    storage = LocalStorage(str(tmp_path))
    go(storage, Watcher(stop_at=4))
    monkeypatch.setattr(microsteps, "token_weights", heavy)
    outcome = go(storage, Watcher())
    assert isinstance(outcome, DataError)
    assert "step 5" in str(outcome)
    assert "sample-" in str(outcome)
    assert steps(storage)[0] == [4]


def test_metrics_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.write("metrics.jsonl", b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    assert kept_lines(storage, 2) == b'{"step": 1}\n{"step": 2}\n'
    assert kept_lines(storage, 3) == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert kept_lines(storage, 0) == b""
    storage.write("metrics.jsonl", b'{"step": 1}\n{"step": 2}')
    assert kept_lines(storage, 2) == b'{"step": 1}\n{"step": 2}\n'
    storage.delete("metrics.jsonl")
    assert kept_lines(storage, 2) == b""


def test_earlier_metrics_cost_nothing_before_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(LocalStorage):
        reads = 0

        def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            self.reads += key == KEY
            return super().read(key, start, length)

    def count(line: bytes) -> Any:
        parsed.append(line)
        return json.loads(line)

    parsed: list[bytes] = []
    earlier = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, 1001)]
    storage = Counting(str(tmp_path))
    storage.write(KEY, "".join(earlier).encode())
    monkeypatch.setattr(metrics, "json", SimpleNamespace(loads=count, dumps=json.dumps))
    with metrics.Metrics(toy_run(str(tmp_path)), storage, 990, 2) as telling:
        assert not storage.reads
        telling.add({"step": 991, "loss": 0.5})
        telling.flush()
        telling.add({"step": 992, "loss": 0.25})
    assert (storage.reads, len(parsed)) == (1, 11)
    added = ['{"step": 991, "loss": 0.5}\n', '{"step": 992, "loss": 0.25}\n']
    assert storage.read(KEY).decode() == "".join(earlier[:990] + added)


def test_writing_metrics_before_a_checkpoint_is_told_as_its_stall(tmp_path: Path) -> None:
    class Far(LocalStorage):
        def write(self, key: str, data: bytes) -> None:
            if key == KEY:
                time.sleep(0.5)
            super().write(key, data)

    storage = Far(str(tmp_path))
    assert go(storage, Watcher(), epochs=1) is None  # saves after steps 4 and 5
    stalls = [json.loads(line)["checkpoint_stall"] for line in storage.read(KEY).splitlines()]
    assert stalls[:4] == [0.0] * 4
    assert stalls[4] >= 0.5


def test_a_run_shorter_than_its_checkpoints_is_refused(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    assert go(storage, Watcher(), epochs=2) is None
    ended = go(storage, Watcher(attempt=2), epochs=1)
    assert isinstance(ended, ConfigError)
    assert "step 10" in str(ended)
    assert "step 5" in str(ended)


def test_storage_that_cannot_be_read_is_no_broken_checkpoint(tmp_path: Path) -> None:
    class Deaf(LocalStorage):
        def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            raise StorageError(f"{key}: the network is down")

    assert go(LocalStorage(str(tmp_path)), Watcher(), epochs=1) is None
    with pytest.raises(StorageError, match="network is down"):
        go(Deaf(str(tmp_path)), Watcher(attempt=2), epochs=2)
    assert steps(LocalStorage(str(tmp_path)))[0]
