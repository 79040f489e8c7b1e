"""Write a checkpoint: each rank its own file, rank 0 the manifest, and the marker last.

Not concerned with which engine trained, nor with which checkpoints may go (`retain`), nor with threads (`background`).
The one decision: a trouble on one rank is told to all of them before anybody raises, so that no rank waits for another
that has gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
    of_attempt,
    parse_manifest,
    rank_file,
    step_folder,
    tensor_key,
)
from ecellm.checkpoint.published import Broken, published
from ecellm.checkpoint.tensorfile import BLOCK_BYTES, TensorFile
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


class LostRace(CheckpointError):
    """Another attempt has published this step, or has taken over the run."""


def save(
    storage: Storage,
    head: Head,
    *,
    step: int,
    slices: Iterable[Slice],
    side: Mapping[str, bytes],
    world: World,
    gather: Gather,
    fence: Callable[[], None] | None = None,
) -> Manifest:
    """Write and publish the checkpoint of `step`; every rank calls this, with its own slices.

    Args:
        slices: fp32 on the CPU.
        side: what an export needs beside weights (rank 0).
        fence: rank 0 calls it before anything of all ranks is published; it raises LostRace where a newer attempt runs.

    Raises:
        StorageError: some rank could not write (the same error on every rank).
        LostRace: another attempt was first, and it is not an earlier one of this run.
    """
    folder = step_folder(step)
    part = agree(gather, lambda: _write_part(storage, folder, head.attempt, slices, world))
    manifest = agree(gather, lambda: _publish(storage, head, step, part, side, world, fence))[0]
    assert isinstance(manifest, Manifest)
    return manifest


def agree(gather: Gather, work: Callable[[], Any]) -> list[Any]:
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


def _write_part(storage: Storage, folder: str, attempt: int, slices: Iterable[Slice], world: World) -> RankFile:
    name = rank_file(attempt, world.rank, world.size)
    tensors, spans = {}, {}
    for piece in slices:
        if piece.tensor.numel():
            tensors[tensor_key(piece.name, piece.kind)] = piece.tensor.detach().cpu().contiguous()
            spans[piece.name] = (piece.start, piece.tensor.numel())
    file = TensorFile(tensors)
    whole, blocks = file.digests()
    storage.upload_stream(file, f"{folder}/{name}")
    return RankFile(name=name, bytes=file.size, sha256=whole, spans=spans, block_bytes=BLOCK_BYTES, blocks=blocks)


def _publish(
    storage: Storage,
    head: Head,
    step: int,
    parts: list[RankFile],
    side: Mapping[str, bytes],
    world: World,
    fence: Callable[[], None] | None,
) -> Manifest | None:
    if world.rank:
        return None
    folder = step_folder(step)
    for part in parts:
        found = storage.size(f"{folder}/{part.name}")
        if found != part.bytes:
            raise StorageError(
                f"{folder}/{part.name} is not what was sent", found=f"{found} bytes", expected=f"{part.bytes} bytes",
                mend="run again; if it stays, check the storage",
            )  # fmt: skip
    files = []
    for name, data in sorted(side.items()):
        key = of_attempt(head.attempt, f"{SIDE}/{name}")
        storage.write(f"{folder}/{key}", data)
        files.append(File(name=key, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    manifest = Manifest(
        step=step, attempt=head.attempt, identity=head.identity, world_size=world.size, position=head.position,
        dtype=head.dtype, parameters=head.parameters, tied=dict(head.tied), lora=head.lora, parts=tuple(parts),
        side=tuple(files),
    )  # fmt: skip
    data = manifest.model_dump_json(indent=1).encode()
    name, digest = of_attempt(head.attempt, MANIFEST), hashlib.sha256(data).hexdigest()
    storage.write(f"{folder}/{name}", data)
    if fence is not None:
        fence()
    # Whoever writes it last, it lists files that are all there.
    storage.write(f"{folder}/{MANIFEST}", data)
    said = {"step": step, "attempt": head.attempt, "manifest": name, "manifest_sha256": digest}
    if not storage.write_new(f"{folder}/{COMPLETE}", json.dumps(said).encode()):
        return _winner(storage, folder, digest, manifest)
    return manifest


def _winner(storage: Storage, folder: str, digest: str, mine: Manifest) -> Manifest:
    """The manifest that a step was published with, where this run may go on with it."""
    try:
        won, data = published(storage, folder)
    except Broken as error:
        raise LostRace(f"{folder} was published by another attempt, with a marker that cannot be read") from error
    if won["manifest_sha256"] == digest:
        return mine
    # The copy is the winner's, as the marker is.
    storage.write(f"{folder}/{MANIFEST}", data)
    theirs = parse_manifest(data, f"{folder}/{won['manifest']}")
    if theirs.attempt < mine.attempt and theirs.identity == mine.identity:
        return theirs  # this run's own, from an attempt that was taken for dead: its marker came late
    raise LostRace(
        f"{folder} was published by another attempt", found=f"attempt {theirs.attempt}",
        expected="one attempt at a time to write to one OUT",
        mend="stop the other run, or give this one its own `out`",
    )  # fmt: skip
