"""Checkpoints as the loop needs them: resume at the newest whole one, save, keep a few. The formats are elsewhere.

The one decision: what makes two runs the same run is `identity`. Settings that only change how fast or how long a run
goes (workers, micro batch, epochs) are not in it, so that they may change between two attempts.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecellm.checkpoint.layout import COMPLETE, Position, step_folder
from ecellm.checkpoint.restore import SliceReader, check_fits, newest, steps
from ecellm.checkpoint.retain import to_remove
from ecellm.checkpoint.save import Head, save
from ecellm.config.schema import Run
from ecellm.data.shards import TokenSet
from ecellm.prompt import FILE as PROMPT
from ecellm.stage import clear, fingerprint
from ecellm.storage.base import Storage, join
from ecellm.train.engine import Engine

_FREE = {
    "epochs", "max_steps", "micro_batch_size", "packing", "pack_tokens", "evaluate_every", "log_every", "engine",
    "rehearse_failure_at",
}  # fmt: skip
_FREE_MODEL = {"gradient_checkpointing", "attention", "trust_remote_code"}
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".index.json", ".onnx", ".md")
_LARGEST_SIDE_FILE = 64 << 20


def identity(run: Run, position: Position) -> str:
    """What a checkpoint and the run that goes on from it must share."""
    return fingerprint(
        "train 1", run.train.model_dump(mode="json", exclude=_FREE),
        run.model.model_dump(mode="json", exclude=_FREE_MODEL), position,
    )  # fmt: skip


def position_of(run: Run, train: TokenSet) -> Position:
    """What the order of samples depends on."""
    return Position(fingerprint=train.fingerprint, seed=run.seed, samples=train.n, batch_size=run.train.batch_size)


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Saves and finds the checkpoints of one run on one rank."""

    run: Run
    storage: Storage
    position: Position
    attempt: int
    dtype: str
    side: Mapping[str, bytes]
    say: Any

    def resume(self, engine: Engine) -> int:
        """Load the newest whole checkpoint, if there is one. Returns the steps that are done.

        Raises:
            CheckpointError: it belongs to other settings or another model.
        """
        manifest = newest(self.storage, engine.world, engine.gather, self.say)
        if manifest is None:
            if engine.world.rank == 0:
                self._unmark_after(0)
            return 0
        folder = step_folder(manifest.step)
        names = {parameter.name: parameter.numel for parameter in engine.parameters()[0]}
        check_fits(manifest, names, identity(self.run, self.position), join(self.storage.root, folder))
        engine.load_slices(SliceReader(self.storage, folder, manifest), manifest.step)
        if engine.world.rank == 0:
            self._unmark_after(manifest.step)
            self.say(f"going on after step {manifest.step} (written by {manifest.world_size} workers)")
        return manifest.step

    def _unmark_after(self, step: int) -> None:
        # These were passed over: with a marker they would count among `keep` and refuse to be made again.
        for newer in steps(self.storage)[0]:
            if newer > step:
                self.storage.delete(f"{step_folder(newer)}/{COMPLETE}")

    def save(self, engine: Engine, step: int) -> None:
        """Write the checkpoint of `step` and remove those that may go. Raises StorageError."""
        parameters, tied = engine.parameters()
        lora = self.run.model.lora
        head = Head(
            identity=identity(self.run, self.position), attempt=self.attempt, position=self.position,
            dtype=self.dtype, parameters=parameters, tied=tied,
            lora=lora.model_dump(mode="json") | {"base": self.run.model.base} if lora else None,
        )  # fmt: skip
        save(
            self.storage, head, step=step, slices=engine.local_slices(), side=self.side, world=engine.world,
            gather=engine.gather,
        )  # fmt: skip
        if engine.world.rank == 0:
            whole, half = steps(self.storage)
            for old in to_remove(whole, half, self.run.checkpoint.keep):
                clear(self.storage, step_folder(old))


def side_files(base: str, config: Any, storage: Storage, dtype: str) -> dict[str, bytes]:
    """What an exported model needs beside its weights: the tokenizer's files as they are, config, prompt.json.

    Args:
        base: local folder of the base model.
        config: the model's transformers config; written with the dtype that is exported.
    """
    files: dict[str, bytes] = {}
    for name in sorted(os.listdir(base)):
        path = os.path.join(base, name)
        if name.endswith(_WEIGHTS) or name.startswith(".") or name in ("COMPLETE", "config.json"):
            continue
        if os.path.isfile(path) and os.path.getsize(path) <= _LARGEST_SIDE_FILE:
            with open(path, "rb") as stream:
                files[name] = stream.read()
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as stream:
            settings = json.load(stream)
    settings["dtype"] = dtype
    settings.pop("_name_or_path", None)
    settings.pop("quantization_config", None)
    settings["use_cache"] = True
    files["config.json"] = json.dumps(settings, indent=2, sort_keys=True).encode()
    try:
        files[PROMPT] = storage.read(PROMPT)
    except FileNotFoundError:
        files.pop(PROMPT, None)
    return files
