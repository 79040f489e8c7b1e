"""Weights & Biases and MLflow, for people who use them: the same numbers as in metrics.jsonl. Extras; rank 0 only.

Keys, servers and modes come from the packages' own environment variables (WANDB_API_KEY, WANDB_MODE,
MLFLOW_TRACKING_URI), so no secret is ever in a run file. The one decision: a tracker that fails is told about once and
then left alone; a run never ends for the sake of a chart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from ecellm.config.schema import Run
from ecellm.errors import ConfigError


class Tracker(Protocol):
    """Takes numbers."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Numbers of one step, by name."""

    def close(self) -> None:
        """No more numbers will come."""


def trackers_of(run: Run, attempt: int, say: Callable[[str], None]) -> list[Tracker]:
    """The trackers that a run names.

    Args:
        say: takes the line about one that fails.

    Raises:
        ConfigError: a package is not installed.
    """
    found: list[Tracker] = []
    if run.track.wandb_project:
        _need("wandb", "track.wandb_project")
        found.append(_Patient(lambda: _Wandb(run, attempt), "Weights & Biases", say))
    if run.track.mlflow_experiment:
        _need("mlflow", "track.mlflow_experiment")
        found.append(_Patient(lambda: _MLflow(run, attempt), "MLflow", say))
    return found


def _need(package: str, setting: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(
            f"{setting} is set, but {package} is not installed", mend='pip install ".[track]", or leave the setting out'
        )


class _Patient:
    """A tracker whose troubles end nothing."""

    def __init__(self, make: Callable[[], Tracker], name: str, say: Callable[[str], None]) -> None:
        self._tracker: Tracker | None = None
        self._name, self._say = name, say
        try:
            self._tracker = make()
        except Exception as error:  # any of a foreign package: no key, a server that is down
            say(f"{name} takes no numbers: {type(error).__name__}: {error}")

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        try:
            if self._tracker is not None:
                self._tracker.log(scalars, step)
        except Exception as error:  # any of a foreign package, told below
            self._say(f"{self._name} takes no more numbers: {type(error).__name__}: {error}")
            self._tracker = None

    def close(self) -> None:
        try:
            if self._tracker is not None:
                self._tracker.close()
        except Exception as error:  # any of a foreign package
            self._say(f"{self._name} did not close: {type(error).__name__}: {error}")


class _Wandb:
    def __init__(self, run: Run, attempt: int) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=run.track.wandb_project, name=run.name, config=run.model_dump(mode="json") | {"attempt": attempt},
            job_type="train", settings=wandb.Settings(silent=True),
        )  # fmt: skip

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish(quiet=True)


class _MLflow:
    def __init__(self, run: Run, attempt: int) -> None:
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient()
        name = run.track.mlflow_experiment
        there = self._client.get_experiment_by_name(name)
        experiment = there.experiment_id if there else self._client.create_experiment(name)
        self._id = self._client.create_run(experiment, run_name=f"{run.name}-attempt-{attempt}").info.run_id
        for key in ("learning_rate", "batch_size", "epochs"):
            self._client.log_param(self._id, key, getattr(run.train, key))

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        for key, value in scalars.items():
            self._client.log_metric(self._id, key.replace("/", "."), value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)
