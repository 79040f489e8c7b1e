"""Write a checkpoint: each rank its own file, rank 0 the manifest, and the marker last.

Not concerned with which engine trained, nor with which checkpoints may go (`retain`). The one decision: a trouble on
one rank is told to all of them before anybody raises, so that no rank waits for another that has gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save_file

from ecellm.checkpoint.layout import (
    COMPLETE,
    MANIFEST,
    SIDE,
    File,
    Manifest,
    Parameter,
    Position,
    RankFile,
    Slice,
    rank_file,
    step_folder,
    tensor_key,
)
from ecellm.errors import CheckpointError, EcellmError, StorageError
from ecellm.records import World
from ecellm.storage.base import Storage

Gather = Callable[[Any], list[Any]]
"""Give one object, get those of all ranks in rank order."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What every checkpoint of a run says about itself."""

    identity: str
    attempt: int
    position: Position
    dtype: str
    parameters: tuple[Parameter, ...]
    tied: Mapping[str, str]
    lora: dict[str, Any] | None


def save(
    storage: Storage,
    head: Head,
    *,
    step: int,
    slices: Iterable[Slice],
    side: Mapping[str, bytes],
    world: World,
    gather: Gather,
) -> Manifest:
    """Write and publish the checkpoint of `step`; every rank calls this, with its own slices.

    Raises:
        StorageError: some rank could not write (the same error on every rank).
    """
    folder = step_folder(step)
    part = _agree(gather, lambda: _write_part(storage, folder, slices, world))
    manifest = _agree(gather, lambda: _publish(storage, head, step, part, side, world))[0]
    assert isinstance(manifest, Manifest)
    return manifest


def _agree(gather: Gather, work: Callable[[], Any]) -> list[Any]:
    """Results of `work` on all ranks; the first rank's error on every rank where one failed."""
    result: Any
    try:
        result = work()
    except EcellmError as error:
        result = error
    except OSError as error:
        result = StorageError("a checkpoint could not be written", found=str(error), mend="free some disk space")
    results = gather(result)
    for rank, found in enumerate(results):
        if isinstance(found, EcellmError):
            found.add_note(f"on rank {rank}")
            raise found
    return results


def _write_part(storage: Storage, folder: str, slices: Iterable[Slice], world: World) -> RankFile:
    name = rank_file(world.rank, world.size)
    tensors, spans = {}, {}
    for piece in slices:
        if piece.tensor.numel():
            tensors[tensor_key(piece.name, piece.kind)] = piece.tensor.detach().cpu().contiguous()
            spans[piece.name] = (piece.start, piece.tensor.numel())
    with tempfile.TemporaryDirectory(prefix="ecellm-save-") as temporary:
        path = os.path.join(temporary, name)
        try:
            save_file(tensors, path)
        except Exception as error:  # safetensors raises its own error for a full disk
            raise StorageError(
                f"a checkpoint could not be written below {tempfile.gettempdir()}", found=str(error),
                mend="free some disk space, or set TMPDIR to a larger disk",
            ) from error  # fmt: skip
        digest, size = hashlib.sha256(), os.path.getsize(path)
        with open(path, "rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
        storage.upload(path, f"{folder}/{name}")
    return RankFile(name=name, bytes=size, sha256=digest.hexdigest(), spans=spans)


def _publish(
    storage: Storage, head: Head, step: int, parts: list[RankFile], side: Mapping[str, bytes], world: World
) -> Manifest | None:
    if world.rank:
        return None
    folder = step_folder(step)
    for part in parts:
        found = storage.size(f"{folder}/{part.name}")
        if found != part.bytes:
            raise CheckpointError(
                f"{folder}/{part.name} is not what was sent", found=f"{found} bytes", expected=f"{part.bytes} bytes",
                mend="run again; if it stays, check the storage",
            )  # fmt: skip
    files = []
    for name, data in sorted(side.items()):
        storage.write(f"{folder}/{SIDE}/{name}", data)
        files.append(File(name=f"{SIDE}/{name}", bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    manifest = Manifest(
        step=step, attempt=head.attempt, identity=head.identity, world_size=world.size, position=head.position,
        dtype=head.dtype, parameters=head.parameters, tied=dict(head.tied), lora=head.lora, parts=tuple(parts),
        side=tuple(files),
    )  # fmt: skip
    data = manifest.model_dump_json(indent=1).encode()
    digest = hashlib.sha256(data).hexdigest()
    storage.write(f"{folder}/{MANIFEST}", data)
    marker = json.dumps({"step": step, "attempt": head.attempt, "manifest_sha256": digest}).encode()
    if not storage.write_new(f"{folder}/{COMPLETE}", marker):
        _check_winner(storage, folder, digest)
    return manifest


def _check_winner(storage: Storage, folder: str, digest: str) -> None:
    with contextlib.suppress(ValueError, FileNotFoundError):
        if json.loads(storage.read(f"{folder}/{COMPLETE}"))["manifest_sha256"] == digest:
            return
    raise CheckpointError(
        f"{folder} was published by another attempt", expected="one attempt at a time to write to one OUT",
        mend="stop the other run, or give this one its own `out`",
    )  # fmt: skip
