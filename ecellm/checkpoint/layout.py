"""What a checkpoint is: names, slices and the manifest that joins them. No storage and no engine here.

    checkpoints/step-00000120/attempt-00003-rank-00000-of-00002.safetensors   what a rank owns of every parameter
                              attempt-00003-model/…          config, tokenizer, prompt.json: what an export needs
                              attempt-00003-manifest.json    how to join the slices
                              manifest.json                  the same
                              COMPLETE                       written last, names the manifest that counts

Two decisions. A slice is a range of a parameter's flattened fp32 values, so any number of ranks can read what any
other number wrote, and nothing depends on the engine; frozen parameters are not saved, the base model has them. And an
attempt writes under its own number only: where two attempts reach one step, neither touches what the other wrote, and
the marker, which only one of them can make, says whose files count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict

from ecellm.errors import CheckpointError

FORMAT = 2
FOLDER = "checkpoints"
MANIFEST = "manifest.json"
COMPLETE = "COMPLETE"
SIDE = "model"
KINDS = ("param", "exp_avg", "exp_avg_sq")
"""fp32 weights, and AdamW's first and second moments."""
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class Slice:
    """`tensor` (fp32, flat) is the part of a parameter's flattened values that begins at `start`."""

    name: str
    kind: str
    start: int
    numel_total: int
    tensor: torch.Tensor


class Reader(Protocol):
    """Gives any range of any parameter: fp32 [length], on the CPU."""

    def __call__(self, name: str, kind: str, start: int, length: int) -> torch.Tensor: ...


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Parameter(_Part):
    """One trained parameter, as the module names it."""

    name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Values in it."""
        product = 1
        for size in self.shape:
            product *= size
        return product


class File(_Part):
    """One file of a checkpoint."""

    name: str
    bytes: int
    sha256: str


class RankFile(File):
    """What one rank wrote: for each parameter the first value and the number of values.

    A range that is read is compared block by block: a whole file's digest says nothing of a part of it, and a client of
    S3 does not notice a byte that changed on its way.
    """

    spans: dict[str, tuple[int, int]]
    block_bytes: int
    blocks: tuple[str, ...]
    """sha256 of each `block_bytes` of the file; the last block may be shorter."""


class Position(_Part):
    """How far a run is in its data. The order is a function, so this is all (`data.order`)."""

    fingerprint: str
    seed: int
    samples: int
    batch_size: int


class Manifest(_Part):
    """All that is needed to read a checkpoint."""

    format: int = FORMAT
    step: int
    attempt: int
    identity: str
    """Fingerprint of the settings that make two runs the same run."""
    world_size: int
    position: Position
    dtype: str
    """Of the exported weights: `float32` or `bfloat16`."""
    parameters: tuple[Parameter, ...]
    tied: dict[str, str]
    """Other names of the same parameter, each with the name that is stored."""
    lora: dict[str, Any] | None = None
    """Settings of the adapters, where only adapters were trained."""
    parts: tuple[RankFile, ...]
    side: tuple[File, ...]

    def files(self) -> tuple[File, ...]:
        """Every file but the manifest and the marker."""
        return (*self.parts, *self.side)


def step_folder(step: int) -> str:
    """`checkpoints/step-00000120`, the key of a checkpoint below OUT."""
    return f"{FOLDER}/step-{step:08d}"


def inside(folder: str, name: str) -> str:
    """Key of a file of a checkpoint; `folder` is empty where the storage's root is the checkpoint itself."""
    return f"{folder}/{name}" if folder else name


def step_of(key: str) -> int | None:
    """The step in a key or folder name; None where it names no checkpoint."""
    found = _STEP.search(key)
    return int(found.group(1)) if found else None


def of_attempt(attempt: int, name: str) -> str:
    """Name of a file that an attempt writes: `attempt-00003-manifest.json`."""
    return f"attempt-{attempt:05d}-{name}"


def rank_file(attempt: int, rank: int, size: int) -> str:
    """Name of what one rank writes."""
    return of_attempt(attempt, f"rank-{rank:05d}-of-{size:05d}.safetensors")


def side_name(file: str) -> str:
    """What a side file is called in an exported model: its name without the folder before it."""
    return file.partition(f"-{SIDE}/")[2]


def tensor_key(name: str, kind: str) -> str:
    """Name of a slice inside a rank's file."""
    return f"{kind}/{name}"


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        CheckpointError: it is no manifest, or of a newer format than this version reads.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValueError as error:
        raise CheckpointError(
            f"{where}: not a manifest", found=str(error).partition("\n")[0], expected="the JSON that a save writes",
            mend="remove this checkpoint; an older one is used",
        ) from error  # fmt: skip
    if manifest.format > FORMAT:
        raise CheckpointError(
            f"{where}: a newer checkpoint format", found=str(manifest.format), expected=f"{FORMAT} or older",
            mend="use the version of ecellm that wrote it",
        )  # fmt: skip
    return manifest
