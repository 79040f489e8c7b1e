"""Trials while a model is trained: real training and real trials on one Ray, and what is tried when."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ecellm.config.schema import Run
from ecellm.data.prepare import prepare
from ecellm.errors import ConfigError, DataError, StorageError
from ecellm.storage.local import LocalStorage
from ecellm.train import probes
from ecellm.train.launch import train
from ecellm.train.probes import KEY, Probes, known_lines, spare_cpus
from tests.data.made import make_row, make_run, put_rows

VAL = [make_row(i, "val") for i in range(9)]


def make(out: Path, **probe: Any) -> Run:
    """Four steps on one worker, a trial every second step."""
    settings = {"epochs": 1, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "evaluate_every": 2}
    return make_run(
        str(out), train=settings, checkpoint={"every": 3, "keep": 6}, probe={"rows": 4} | probe,
        evaluate={"tasks": ["PM", "MPC"], "bootstrap": 20},
    )  # fmt: skip


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_a_training_is_tried_beside_itself_and_the_last_line_is_the_exported_models(tmp_path: Path) -> None:
    run = make(tmp_path / "out")
    storage = LocalStorage(run.out)
    put_rows(storage, [make_row(i) for i in range(32)] + VAL)
    prepare(run)
    assert spare_cpus(run) == 1
    train(run)
    lines = known_lines(storage)
    assert set(lines) == {2, 4}  # not 3, where a checkpoint was for its own sake
    assert [json.loads(line)["step"] for line in storage.read(KEY).decode().splitlines()] == [2, 4]
    assert storage.exists(probes.EVENTS)
    for line in lines.values():
        assert {name: one["metric"] for name, one in line["scores"].items()} == {"PM": "f1", "MPC": "acc"}
        assert [one["n"] for one in line["scores"].values()] == [4, 3]
    assert lines[4]["scores"] == _by_evaluate(run)


def _by_evaluate(run: Run) -> dict[str, dict[str, Any]]:
    """The same rows asked of the exported model as `evaluate` asks its own."""
    from ecellm.evaluate import probe

    storage = LocalStorage(run.out)
    return probe._tried(run, str(Path(run.out) / "model"), probe.sample(run, storage))


class FakeTask:
    """Takes orders, and ends them when it is told to."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def remote(self, run_json: str, step: int) -> int:
        self.asked.append(step)
        return step


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probes:
    """Trials of a run with ten steps; `ray.wait` and `ray.get` see what `done` holds."""
    import ray

    run = make(tmp_path / "out", workers=2)
    put_rows(LocalStorage(run.out), VAL)
    monkeypatch.setattr(probes, "split_facts", lambda storage, split: {"rows": 80, "fingerprint": "tokens"})
    monkeypatch.setattr(probes, "_task_of", lambda run: FakeTask())
    monkeypatch.setattr(probes, "LOOK_S", 0.0)
    found: Any = Probes(run)
    found.done = {}
    monkeypatch.setattr(ray, "wait", lambda refs, **_: ([one for one in refs if one in found.done], []))

    def get(reference: int) -> Any:
        if isinstance(found.done[reference], Exception):
            raise found.done[reference]
        return found.done[reference]

    monkeypatch.setattr(ray, "get", get)
    return found


def whole(run: Run, *wanted: int) -> None:
    for step in wanted:
        folder = Path(run.out) / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "COMPLETE").write_text("{}")


def test_the_newest_that_is_due_goes_first_and_no_more_at_once_than_there_are_workers(tried: Any) -> None:
    tried.look()
    assert tried._task.asked == []
    whole(tried.run, 2, 4, 5, 6, 10)
    tried.look()
    assert tried._task.asked == [10, 6]
    tried.done[10] = {"PM": {"metric": "f1", "value": 0.5, "n": 4}}
    tried.look()
    assert tried._task.asked == [10, 6, 4]
    assert set(known_lines(tried.storage)) == {10}
    again = Probes(tried.run)
    assert 10 not in again._due()


def test_lines_of_other_settings_are_not_taken_for_these(tried: Any) -> None:
    whole(tried.run, 2)
    tried.look()
    tried.done[2] = {"PM": {"metric": "f1", "value": 0.5, "n": 4}}
    tried.look()
    assert Probes(tried.run)._due() == []
    faster = tried.run.train.model_copy(update={"learning_rate": 0.5})
    assert Probes(tried.run.model_copy(update={"train": faster}))._due() == [2]
    other = tried.run.probe.model_copy(update={"decoding": "choice"})
    assert Probes(tried.run.model_copy(update={"probe": other}))._due() == [2]


def test_a_trial_that_never_begins_does_not_hold_the_end_up(
    tried: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    cancelled: list[int] = []
    monkeypatch.setattr(ray, "cancel", lambda reference, force: cancelled.append(reference))
    tried.run = tried.run.model_copy(update={"probe": tried.run.probe.model_copy(update={"timeout_s": 1})})
    whole(tried.run, 2)
    tried.finish(threading.Event())
    assert cancelled == [2]
    assert "trials of steps 2 did not end for 1 s: given up" in capfd.readouterr().err


def test_a_trial_that_fails_is_told_of_once_and_training_goes_on(tried: Any, capfd: pytest.CaptureFixture[str]) -> None:
    import ray

    whole(tried.run, 2)
    tried.look()
    cause = ConfigError("evaluate.similarity_encoder: not there", mend="name another")
    tried.done[2] = ray.exceptions.RayTaskError("try_step", "a page\nof traceback", cause)
    tried.look()
    assert tried._task.asked == [2]
    assert "step 2 could not be tried, training goes on: evaluate.similarity_encoder" in capfd.readouterr().err
    whole(tried.run, 4)
    tried.look()
    assert tried._task.asked == [2, 4]
    (Path(tried.run.out) / "checkpoints/step-00000004/COMPLETE").unlink()
    tried.done[4] = ray.exceptions.RayTaskError("try_step", "it went", cause)
    tried.look()
    assert capfd.readouterr().err == ""
    assert known_lines(tried.storage) == {}


def test_scores_that_cannot_be_written_are_written_later(
    tried: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(key: str, data: bytes) -> None:
        raise StorageError(f"{key}: no space")

    whole(tried.run, 2)
    tried.look()
    tried.done[2] = {"PM": {"metric": "f1", "value": 0.5, "n": 4}}
    with monkeypatch.context() as patch:
        patch.setattr(tried.storage, "write", full)
        tried.look()
        tried.look()
        assert capfd.readouterr().err.count("trials of the model wait, training goes on: probes.jsonl: no space") == 1
        with pytest.raises(StorageError, match="no space"):  # at the end it is an error
            tried.finish(threading.Event())
    assert known_lines(tried.storage) == {}
    tried.look()
    assert set(known_lines(tried.storage)) == {2}


def test_a_request_to_stop_ends_the_wait(tried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    cancelled: list[int] = []
    monkeypatch.setattr(ray, "cancel", lambda reference, force: cancelled.append(reference))
    whole(tried.run, 2)
    tried.look()
    stop = threading.Event()
    stop.set()
    tried.finish(stop)
    assert cancelled == [2]


def test_without_rows_it_is_said_before_training(tmp_path: Path) -> None:
    run = make(tmp_path / "out", split="test")
    put_rows(LocalStorage(run.out), VAL)
    with pytest.raises(DataError, match=r"probe\.split"):
        Probes(run)
    assert Probes(make(tmp_path / "out", rows=0)).look() is None
    assert spare_cpus(make(tmp_path / "out", rows=0)) == 0
