"""Checkpoints as the loop needs them: resume at the newest whole one, save, keep a few. The formats are elsewhere.

The one decision: what makes two runs the same run is `identity`. Settings that only change how fast or how long a run
goes (workers, micro batch, epochs) are not in it, so that they may change between two attempts.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ecellm.checkpoint.background import Publisher
from ecellm.checkpoint.hostcopy import HostCopy
from ecellm.checkpoint.layout import COMPLETE, FOLDER, Manifest, Position, step_folder
from ecellm.checkpoint.restore import check_fits, read_newest, steps
from ecellm.checkpoint.retain import to_remove
from ecellm.checkpoint.save import Gather, Head, LostRace, save
from ecellm.config.schema import Run
from ecellm.data.shards import TokenSet
from ecellm.errors import EcellmError
from ecellm.prompt import FILE as PROMPT
from ecellm.stage import clear, fingerprint
from ecellm.storage.base import Storage, join
from ecellm.train.engine import Engine
from ecellm.train.lora import adapter_facts

_FREE = {
    "epochs", "max_steps", "micro_batch_size", "packing", "pack_tokens", "evaluate_every", "log_every", "engine",
    "rehearse_failure_at", "profile_steps",
}  # fmt: skip
_WRITTEN = (FOLDER, "model", "adapter")
"""Where an attempt that died may have left half an upload."""
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


@dataclass(kw_only=True)
class Keeper:
    """Saves and finds the checkpoints of one run on one rank."""

    run: Run
    storage: Storage
    position: Position
    attempt: int
    dtype: str
    side: Mapping[str, bytes]
    say: Callable[[str], None]
    fence: Callable[[], None] | None = None
    stall: float = 0.0
    """Seconds that training has waited for checkpoints since this was last read."""
    failed: int = 0
    """Publishes in a row that did not succeed."""
    _copy: HostCopy = field(default_factory=HostCopy)
    _publisher: Publisher = field(default_factory=Publisher)
    _channel: Gather | None = None

    def resume(self, engine: Engine) -> int:
        """Load the newest whole checkpoint, if there is one. Returns the steps that are done.

        Raises:
            CheckpointError: it belongs to other settings or another model, or a newer attempt has begun.
            StorageError: storage cannot be read.
        """
        broken: list[int] = []
        names = {parameter.name: parameter.numel for parameter in engine.parameters()[0]}
        mine = identity(self.run, self.position)

        def fits(manifest: Manifest) -> None:
            check_fits(manifest, names, mine, join(self.storage.root, step_folder(manifest.step)))

        found = read_newest(
            self.storage, list(engine.owned()), fits=fits, world=engine.world, gather=engine.gather, say=self.say,
            broken=broken.append,
        )  # fmt: skip
        step = found[0].step if found else 0
        if found is not None:
            held = found[1]
            engine.load_slices(lambda name, kind, start, length: held[name, kind], step)
        if engine.world.rank == 0:
            self._clear(broken)
            if found is not None:
                self.say(f"going on after step {step} (written by {found[0].world_size} workers)")
        return step

    def _clear(self, broken: list[int]) -> None:
        """Make room for steps that are done again, unless a newer attempt has begun, whose steps they may be by now.

        With a marker a broken step would count among `keep` and never be made again.
        """
        if self.fence is not None:
            self.fence()
        for step in broken:
            self.storage.delete(f"{step_folder(step)}/{COMPLETE}")
        try:
            for prefix in _WRITTEN:
                self.storage.sweep(prefix)
        except (EcellmError, FileNotFoundError) as error:  # some servers lack the call, some identities the right
            self.say(f"what dead writers left behind could not be removed, training goes on: {error}")

    def save(self, engine: Engine, step: int, *, wait: bool) -> None:
        """Copy the state of `step` to host memory and publish it, in the background unless `wait`.

        Every rank calls this at the same step. Training is held up for the copy and, where it is still on its way, for
        the checkpoint before.

        Raises:
            EcellmError: this or an earlier checkpoint could not be published, too often in a row (`failed`) or with
                `wait`; the same on every rank.
        """
        began = time.perf_counter()
        self.collect(wait=True)
        if self._channel is None:
            self._channel = engine.channel()
        channel, world = self._channel, engine.world
        parameters, tied = engine.parameters()
        lora = self.run.model.lora
        head = Head(
            identity=identity(self.run, self.position), attempt=self.attempt, position=self.position,
            dtype=self.dtype, parameters=parameters, tied=tied,
            lora=adapter_facts(engine.model(), lora) | self.run.model.model_dump(include={"base", "revision"})
            if lora else None,
        )  # fmt: skip
        slices = self._copy.take(engine.local_slices())

        def publish() -> None:
            save(
                self.storage, head, step=step, slices=slices, side=self.side, world=world, gather=channel,
                fence=self.fence,
            )  # fmt: skip
            if world.rank == 0:
                self._retain()

        self._publisher.start(step, publish)
        if wait or not self.run.checkpoint.background:
            self.collect(wait=True, final=wait)
        self.stall += time.perf_counter() - began

    def collect(self, *, wait: bool, final: bool = False) -> None:
        """Take in what the publishing thread ended with. Raises EcellmError where training should not go on so."""
        ended = self._publisher.collect(wait=wait)
        if ended is None:
            return
        step, error = ended
        if error is None:
            self.failed = 0
            return
        self.failed += 1
        if final or isinstance(error, LostRace) or self.failed > self.run.checkpoint.tolerate:
            raise error
        self.say(f"the checkpoint of step {step} could not be published, training goes on: {error.what}")

    def take_stall(self) -> float:
        """Seconds of waiting since the last call."""
        stall, self.stall = self.stall, 0.0
        return stall

    def _retain(self) -> None:
        """Delete what may go. A trouble is told and costs nothing else: the new checkpoint is published by now."""
        try:
            whole, half = steps(self.storage)
            for old in to_remove(whole, half, self.run.checkpoint.keep):
                clear(self.storage, step_folder(old))
        except EcellmError as error:
            self.say(f"old checkpoints could not be removed, training goes on: {error}")


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
