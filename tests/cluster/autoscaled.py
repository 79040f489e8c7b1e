"""A shipped launcher file under Ray's real autoscaler: types, limits and labels as shipped, machines local."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from ecellm.config.schema import Run
from ecellm.evaluate import pool
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.log import Answer
from ecellm.evaluate.plan import Unit
from ecellm.evaluate.requests import Request, request
from ecellm.evaluate.voices import Voice
from tests.cluster.head import ROOT, Head

HEAD_ID = "f" * 51 + "00000"


class Echo:
    """Stands for a training in an actor that holds its GPUs. It lies here, where workers can import it."""

    def answer(self, batch: list[int]) -> list[int]:
        """The batch itself."""
        return batch


class EchoHolder:
    """Stands for the actors of `answer_all`: it loads no model, since the fake GPUs cannot compute, and echoes."""

    def __init__(self, run_json: str, writer: str, code: str) -> None:
        """As the real one is made."""

    def hold(self, voice: Voice) -> None:
        """Nothing to load."""

    def answer(self, voice: Voice, requests: tuple[Request, ...]) -> Iterator[list[Answer]]:
        """Each request's key."""
        yield [Answer(key=one.key, text=one.key, tokens=1, finish_reason="stop") for one in requests]

    def facts(self) -> Facts:
        """Nothing was computed."""
        return Facts(way="echo")


def evaluated(run: Run) -> list[Answer]:
    """An evaluation of one question through the real queue and pool, by an actor that echoes."""
    asked = request([1, 2, 3], model="echo", decoding="greedy", max_new_tokens=1, seed=1)
    told: list[Answer] = []
    voices = {"echo": Voice(name="echo", digest="echo", separator="", engine="transformers")}
    with mock.patch.object(pool, "Holder", EchoHolder):
        pool.answer_all(run, voices, [Unit("echo", (asked,))], lambda name, answers: told.extend(answers))
    assert [one.text for one in told] == [asked.key]
    return told


def shipped(name: str) -> dict[str, Any]:
    """A launcher file of `cluster/` after Ray has filled in its defaults and validated it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster" / name).read_text()))
    validate_config(config)
    return dict(config)


class Autoscaled(Head):
    """A head whose autoscaler launches fake machines of the shipped types; a context.

    Args:
        idle_s: seconds after which idle nodes go, instead of the shipped minutes.
        no_capacity: node types of which there is none to be had.
    """

    def __init__(self, name: str, *, idle_s: float = 8, no_capacity: tuple[str, ...] = ()) -> None:
        super().__init__(
            cpus=0, RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_enable_autoscaler_v2="1",
            RAY_CLOUD_INSTANCE_ID=HEAD_ID, RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_ID, PYTHONPATH=str(ROOT),
        )  # fmt: skip
        config = copy.deepcopy(shipped(name))
        self.record = self.folder / "provider.jsonl"
        self.record.touch()
        for kind in config["available_node_types"].values():
            kind["node_config"] = {}
            kind.pop("docker", None)
            kind["resources"]["object_store_memory"] = 80 << 20
        config.update(
            auth={}, docker={}, file_mounts={}, idle_timeout_minutes=idle_s / 60,
            provider={
                "type": "external", "module": "tests.cluster.fake_provider.Provider", "gcs_address": self.address,
                "launch_multiple": True, "head_node_id": HEAD_ID, "head_node_type": config["head_node_type"],
                "disable_node_updaters": True, "log": str(self.record), "no_capacity": list(no_capacity),
            },
        )  # fmt: skip
        for commands in [key for key in config if key.endswith("_commands")]:
            config[commands] = []
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".json", delete=False) as file:
            json.dump(config, file)
        labels = config["available_node_types"][config["head_node_type"]]["labels"]
        self._words += [
            f"--autoscaling-config={file.name}", "--num-gpus=0",
            "--labels=" + ",".join(f"{key}={value}" for key, value in labels.items()),
        ]  # fmt: skip

    def happened(self, what: str) -> list[str]:
        """Node types that were `created`, `refused` or `terminated`, in order."""
        lines = [json.loads(line) for line in Path(self.record).read_text().splitlines()]
        return [line[what] for line in lines if what in line]
