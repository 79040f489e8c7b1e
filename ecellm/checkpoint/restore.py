"""Find the newest whole checkpoint and read any range of it, at any number of ranks.

The one decision: a marker alone is not believed. Sizes are compared and every file's sha256 is worked out (ranks share
the files between them) before anything is loaded; a checkpoint that fails is passed over with a line that says why.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable

import torch

from ecellm.checkpoint.layout import (
    COMPLETE,
    FOLDER,
    MANIFEST,
    File,
    Manifest,
    RankFile,
    inside,
    parse_manifest,
    step_folder,
    step_of,
    tensor_key,
)
from ecellm.checkpoint.save import Gather
from ecellm.errors import CheckpointError, StorageError
from ecellm.records import World
from ecellm.storage.base import Storage

_BLOCK = 1 << 24


def steps(storage: Storage) -> tuple[list[int], list[int]]:
    """Steps of checkpoints with a marker and of those without one, each sorted."""
    whole: set[int] = set()
    seen: set[int] = set()
    for key, _ in storage.list(f"{FOLDER}/"):
        step = step_of(key)
        if step is not None:
            seen.add(step)
            if key == f"{step_folder(step)}/{COMPLETE}":
                whole.add(step)
    return sorted(whole), sorted(seen - whole)


def read_manifest(storage: Storage, folder: str) -> Manifest:
    """The manifest of a published checkpoint, compared with what its marker says.

    Raises:
        CheckpointError: no marker, or a manifest that is missing or another one.
    """
    try:
        marker = json.loads(storage.read(inside(folder, COMPLETE)))
        data = storage.read(inside(folder, MANIFEST))
        wanted = marker["manifest_sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{storage.root}/{folder} is no whole checkpoint", found=str(error),
            expected=f"{COMPLETE} and {MANIFEST}", mend="name another step; `ecellm checkpoints list` shows them",
        ) from error  # fmt: skip
    if hashlib.sha256(data).hexdigest() != wanted:
        raise CheckpointError(f"{folder}/{MANIFEST} is not the one its marker names", mend="remove this checkpoint")
    return parse_manifest(data, inside(folder, MANIFEST))


def fault(storage: Storage, folder: str, file: File) -> str:
    """What is wrong with one file of a checkpoint; empty where nothing is."""
    key = inside(folder, file.name)
    try:
        size = storage.size(key)
        if size != file.bytes:
            return f"{file.name} has {size} bytes, not {file.bytes}"
        digest = hashlib.sha256()
        for start in range(0, size, _BLOCK):
            digest.update(storage.read(key, start, min(_BLOCK, size - start)))
    except FileNotFoundError:
        return f"{file.name} is missing"
    return "" if digest.hexdigest() == file.sha256 else f"{file.name} has another sha256 than the manifest says"


def verify(storage: Storage, folder: str) -> list[str]:
    """Faults of a checkpoint, read whole on this machine; empty where there are none."""
    try:
        manifest = read_manifest(storage, folder)
    except CheckpointError as error:
        return [str(error)]
    faults = []
    for file in manifest.files():
        try:
            found = fault(storage, folder, file)
        except StorageError as error:
            found = f"{file.name} cannot be read: {error.what}"
        faults += [found] if found else []
    return faults


def newest(storage: Storage, world: World, gather: Gather, say: Callable[[str], None]) -> Manifest | None:
    """The newest whole checkpoint, the same on every rank; None where there is none.

    Args:
        say: takes the line about each checkpoint that is passed over (rank 0 only).

    Raises:
        StorageError: storage cannot be read, on every rank: that says nothing about the checkpoint.
    """
    candidates = gather(steps(storage)[0] if world.rank == 0 else None)[0]
    for step in reversed(candidates):
        folder, faults = step_folder(step), []
        manifest, trouble = None, None
        try:
            manifest = read_manifest(storage, folder)
            mine = manifest.files()[world.rank :: world.size]
            faults += [found for file in mine if (found := fault(storage, folder, file))]
        except CheckpointError as error:
            faults.append(error.what)
        except StorageError as error:
            trouble = error
        heard = gather((faults, trouble))
        for _, unread in heard:
            if unread is not None:
                raise unread
        everybodys = sorted({line for lines, _ in heard for line in lines})
        if not everybodys:
            return manifest
        if world.rank == 0:
            say(f"checkpoint of step {step} is passed over: {'; '.join(everybodys)}")
    return None


class SliceReader:
    """Reads ranges of parameters and moments out of a checkpoint's safetensors files."""

    def __init__(self, storage: Storage, folder: str, manifest: Manifest) -> None:
        if sys.byteorder != "little":
            raise CheckpointError("checkpoints hold little-endian numbers", mend="use a little-endian machine")
        self._storage, self._folder = storage, folder
        self._where: dict[str, list[tuple[int, int, RankFile]]] = {}
        for part in manifest.parts:
            for name, (start, length) in part.spans.items():
                self._where.setdefault(name, []).append((start, length, part))
        self._offsets: dict[str, dict[str, int]] = {}

    def __call__(self, name: str, kind: str, start: int, length: int) -> torch.Tensor:
        """Values `start` to `start + length` of a flattened parameter: fp32 [length].

        Raises:
            CheckpointError: the checkpoint does not hold all of the range.
        """
        out, found = torch.empty(length, dtype=torch.float32), 0
        for first, count, part in self._where.get(name, ()):
            begin, end = max(start, first), min(start + length, first + count)
            if begin < end:
                at = self._offset(part, tensor_key(name, kind)) + 4 * (begin - first)
                data = bytearray(self._storage.read(inside(self._folder, part.name), at, 4 * (end - begin)))
                out[begin - start : end - start] = torch.frombuffer(data, dtype=torch.float32)
                found += end - begin
        if found != length:
            raise CheckpointError(
                f"{self._folder} does not hold all of {kind} of {name}", found=f"{found} values",
                expected=f"{length} from {start}", mend="use another checkpoint, or the model it was made from",
            )  # fmt: skip
        return out

    def _offset(self, part: RankFile, key: str) -> int:
        """Byte at which a tensor begins in a rank's file."""
        if part.name not in self._offsets:
            path = inside(self._folder, part.name)
            size = int.from_bytes(self._storage.read(path, 0, 8), "little")
            header = json.loads(self._storage.read(path, 8, size))
            self._offsets[part.name] = {
                tensor: 8 + size + int(facts["data_offsets"][0])
                for tensor, facts in header.items()
                if tensor != "__metadata__"
            }
        return self._offsets[part.name][key]


def check_fits(manifest: Manifest, names: dict[str, int], identity: str, where: str) -> None:
    """Compare a checkpoint with the run and the model that would go on from it.

    Args:
        names: values in each trained parameter of the model.

    Raises:
        CheckpointError: it belongs to a run with other settings or to another model.
    """
    stored = {parameter.name: parameter.numel for parameter in manifest.parameters}
    if manifest.identity == identity and stored == names:
        return
    other = sorted(set(stored.items()) ^ set(names.items()))[:3]
    raise CheckpointError(
        f"{where} belongs to a run with other settings",
        found=f"parameters that differ: {other}" if other else "other model, data, seed or training settings",
        expected="the run file that it was started with",
        mend="give the changed run another `out`, or remove the old checkpoints",
    )
