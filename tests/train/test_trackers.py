"""Weights & Biases and MLflow get the numbers of metrics.jsonl, offline; a tracker that breaks ends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ecellm.config.schema import Track
from ecellm.errors import ConfigError, StorageError
from ecellm.storage.local import LocalStorage
from ecellm.train import trackers
from ecellm.train.metrics import Metrics
from tests.train.toys import toy_run


def test_mlflow_gets_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = toy_run(str(tmp_path / "out"), track=Track(mlflow_experiment="shop"))
    with Metrics(run, LocalStorage(run.out), 0, 1) as metrics:
        metrics.add({"step": 1, "loss": 2.5})
        metrics.add({"step": 2, "loss": float("nan")})
    client = mlflow.tracking.MlflowClient()
    [found] = client.search_runs([client.get_experiment_by_name("shop").experiment_id])
    assert found.data.metrics == {"train.loss": 2.5}
    assert found.data.params["batch_size"] == "8"
    assert found.info.status == "FINISHED"


def test_wandb_gets_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = toy_run(str(tmp_path / "out"), track=Track(wandb_project="shop"))
    with Metrics(run, LocalStorage(run.out), 0, 1) as metrics:
        metrics.add({"step": 1, "loss": 2.5, "memory_bytes_by_rank": [1, 2]})
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_missing_package_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb_project") as caught:
        trackers.trackers_of(toy_run(track=Track(wandb_project="x")), 1, print)
    assert '".[track]"' in caught.value.mend


def test_a_tracker_that_breaks_is_left_alone() -> None:
    class Broken:
        calls = 0

        def log(self, scalars: Mapping[str, float], step: int) -> None:
            self.calls += 1
            raise ConnectionError("no network")

        def close(self) -> None:
            raise AssertionError("a tracker that was given up is not closed")

    broken, said = Broken(), list[str]()
    patient = trackers._Patient(lambda: broken, "Charts", said.append)
    for step in range(3):
        patient.log({"loss": 1.0}, step)
    patient.close()
    assert broken.calls == 1
    assert said == ["Charts takes no more numbers: ConnectionError: no network"]


def test_a_tracker_that_cannot_start_is_told_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    run, said = toy_run(str(tmp_path / "out"), track=Track(mlflow_experiment="shop")), list[str]()
    with Metrics(run, LocalStorage(run.out), 0, 1, said.append) as metrics:
        metrics.add({"step": 1, "loss": 2.5})
    [line] = said
    assert line.startswith("MLflow takes no numbers: ")
    assert (tmp_path / "out/metrics.jsonl").exists()


class Failing(LocalStorage):
    """Writes nothing while `broken`."""

    broken = True

    def write(self, key: str, data: bytes) -> None:
        if self.broken:
            raise StorageError(f"{key}: no space")
        super().write(key, data)


def test_metrics_that_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    storage, said = Failing(str(tmp_path)), list[str]()

    def run() -> None:
        with Metrics(toy_run(str(tmp_path)), storage, 0, 1, said.append) as metrics:
            metrics.add({"step": 1, "loss": 2.5})
            metrics.flush()
            assert said == ["the metrics could not be written, training goes on: metrics.jsonl: no space"]
            storage.broken = False
            metrics.flush()
            assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 2.5}\n'
            storage.broken = True
            metrics.add({"step": 2, "loss": 2.0})

    with pytest.raises(StorageError, match="no space"):  # at the end it is an error
        run()


def test_metrics_that_cannot_be_written_hide_no_other_trouble(tmp_path: Path) -> None:
    def run() -> None:
        with Metrics(toy_run(str(tmp_path)), Failing(str(tmp_path)), 0, 1) as metrics:
            metrics.add({"step": 1, "loss": 2.5})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
