"""Find the newest whole checkpoint and read any range of it, at any number of ranks.

The one decision: a marker alone is not believed. Every block that is read is compared with its sha256 in the manifest,
and all ranks have their part in memory before any of it is loaded; a checkpoint that fails is passed over with a line
that says why. It counts as broken only where rank 0 finds so too: one machine's network says nothing of what is stored.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from ecellm.checkpoint.layout import (
    COMPLETE,
    FOLDER,
    KINDS,
    File,
    Manifest,
    RankFile,
    inside,
    parse_manifest,
    step_folder,
    step_of,
    tensor_key,
)
from ecellm.checkpoint.published import READS, Broken, published
from ecellm.checkpoint.save import Gather
from ecellm.checkpoint.tensorfile import raw
from ecellm.errors import CheckpointError, EcellmError, StorageError
from ecellm.records import World
from ecellm.storage.base import Storage

_BLOCK = 1 << 24
_CACHE_BYTES = 1 << 30
"""Most bytes of blocks that a reader holds: the newest one of each file, files read longest ago leave first."""


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
    """The manifest that a published checkpoint's marker names.

    Raises:
        CheckpointError: no marker, or a manifest that is missing or another one.
    """
    marker, data = published(storage, folder)
    return parse_manifest(data, inside(folder, str(marker["manifest"])))


def fault(storage: Storage, folder: str, file: File, *, digest: bool = True) -> str:
    """What is wrong with one file of a checkpoint; empty where nothing is. Networks change bytes too: see `READS`.

    Args:
        digest: read the file and compare its sha256, not its size alone.
    """
    key = inside(folder, file.name)
    try:
        size = storage.size(key)
        if size != file.bytes:
            return f"{file.name} has {size} bytes, not {file.bytes}"
        if not digest:
            return ""
        for _ in range(READS):
            found = hashlib.sha256()
            for start in range(0, size, _BLOCK):
                found.update(storage.read(key, start, min(_BLOCK, size - start)))
            if found.hexdigest() == file.sha256:
                return ""
    except FileNotFoundError:
        return f"{file.name} is missing"
    return f"{file.name} has another sha256 than the manifest says"


def verify(storage: Storage, folder: str, *, digests: bool = True) -> list[str]:
    """Faults of a checkpoint, read whole on this machine; empty where there are none.

    Args:
        digests: read its files; without it, only marker, manifest and sizes are looked at.
    """
    try:
        manifest = read_manifest(storage, folder)
    except CheckpointError as error:
        return [str(error)]
    faults = []
    for file in manifest.files():
        try:
            found = fault(storage, folder, file, digest=digests)
        except StorageError as error:
            found = f"{file.name} cannot be read: {error.what}"
        faults += [found] if found else []
    return faults


Owned = Sequence[tuple[str, int, int]]
"""(parameter, first value, number of values) of each slice that a rank owns."""
Held = dict[tuple[str, str], torch.Tensor]
"""(parameter, kind) -> fp32 [number of values]."""
Place = tuple[str, str, int, int] | str | None
"""Where a rank found a fault: a range (parameter, kind, start, length), a file, or None for marker and manifest."""


def read_newest(
    storage: Storage,
    owned: Owned,
    *,
    fits: Callable[[Manifest], None],
    world: World,
    gather: Gather,
    say: Callable[[str], None],
    broken: Callable[[int], None] = lambda step: None,
) -> tuple[Manifest, Held] | None:
    """The newest whole checkpoint, the same on every rank, and this rank's part of it; None where there is none.

    Bytes are compared with the manifest's digests as they come. Where any rank finds a fault, all pass
    on to the checkpoint before; nothing is put into an engine until all ranks have their part.

    Args:
        fits: raises CheckpointError where a checkpoint belongs to another run.
        say: takes the line about each checkpoint that is passed over (from rank 0).
        broken: takes the step of each of them whose fault rank 0 has found itself (on rank 0).

    Raises:
        StorageError: storage cannot be read, on every rank: that says nothing about the checkpoint.
        CheckpointError: raised by `fits`.
    """
    for step in reversed(gather(steps(storage)[0] if world.rank == 0 else None)[0]):
        folder, fault_, trouble = step_folder(step), "", None
        manifest: Manifest | None = None
        held: Held = {}
        place: Place = None
        try:
            manifest = read_manifest(storage, folder)
            fits(manifest)
            read = SliceReader(storage, folder, manifest)
            for name, start, count in owned:
                for kind in KINDS:
                    place = (name, kind, start, count)
                    held[name, kind] = read(*place)
            for file in manifest.side[world.rank :: world.size]:
                place = file.name
                if wrong := fault(storage, folder, file):
                    raise Broken(wrong)
        except Broken as error:
            fault_ = error.what
        except EcellmError as error:
            trouble = error
        heard = gather((fault_, place, trouble))
        for *_, other in heard:
            if other is not None:
                raise other
        faults = sorted({line for line, *_ in heard if line})
        if not faults:
            assert manifest is not None
            return manifest, held
        if world.rank == 0:
            said = f"checkpoint of step {step} is passed over: {'; '.join(faults)}"
            places = [where for line, where, _ in heard if line]
            if fault_ or (manifest and any(_confirmed(storage, folder, manifest, where) for where in places)):
                broken(step)
            else:
                said += "; it stays, since worker 0 reads the same without a fault"
            say(said)
    return None


def _confirmed(storage: Storage, folder: str, manifest: Manifest, place: Place) -> bool:
    """Whether this rank finds a fault where another one did, with a manifest that this rank has read whole."""
    try:
        if isinstance(place, str):
            return any(fault(storage, folder, file) for file in manifest.side if file.name == place)
        if place is not None:
            SliceReader(storage, folder, manifest)(*place)
    except Broken:
        return True
    except StorageError:
        return False
    return False


class SliceReader:
    """Reads ranges of parameters and moments out of a checkpoint's files, by whole blocks, each verified.

    Args:
        cache_bytes: most bytes of blocks that are held, but always the newest block.
    """

    def __init__(self, storage: Storage, folder: str, manifest: Manifest, cache_bytes: int = _CACHE_BYTES) -> None:
        if sys.byteorder != "little":
            raise CheckpointError("checkpoints hold little-endian numbers", mend="use a little-endian machine")
        self._storage, self._folder, self._cache_bytes = storage, folder, cache_bytes
        self._where: dict[str, list[tuple[int, int, RankFile]]] = {}
        for part in manifest.parts:
            for name, (start, length) in part.spans.items():
                self._where.setdefault(name, []).append((start, length, part))
        self._offsets: dict[str, dict[str, int]] = {}
        self._newest: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        """By file, the number of the block that was read last, and the block: a range of a parameter that was saved
        at another world size alternates between files, and each is read from its beginning to its end."""

    def __call__(self, name: str, kind: str, start: int, length: int) -> torch.Tensor:
        """Values `start` to `start + length` of a flattened parameter: fp32 [length].

        Raises:
            Broken: the checkpoint does not hold all of the range, or its bytes are not those that were written.
        """
        out, found = torch.empty(length, dtype=torch.float32), 0
        for first, count, part in self._where.get(name, ()):
            begin, end = max(start, first), min(start + length, first + count)
            if begin < end:
                at = self._offset(part, tensor_key(name, kind)) + 4 * (begin - first)
                self._read(part, at, raw(out[begin - start : end - start]))
                found += end - begin
        if found != length:
            raise Broken(
                f"{self._folder} does not hold all of {kind} of {name}", found=f"{found} values",
                expected=f"{length} from {start}", mend="use another checkpoint, or the model it was made from",
            )  # fmt: skip
        return out

    def _read(self, part: RankFile, at: int, out: memoryview) -> None:
        """Fill `out` with bytes of a file from `at` on."""
        done = 0
        while done < len(out):
            number, within = divmod(at + done, part.block_bytes)
            piece = self._block(part, number)[within : within + len(out) - done]
            if not piece:
                raise Broken(f"{part.name} ends before byte {at + len(out)}")
            out[done : done + len(piece)] = piece
            done += len(piece)

    def _block(self, part: RankFile, number: int) -> bytes:
        """One block, as it was written; read again where it came otherwise, since networks change bytes too."""
        kept = self._newest.get(part.name)
        if kept and kept[0] == number:
            self._newest.move_to_end(part.name)
            return kept[1]
        if number >= len(part.blocks):
            raise Broken(f"{part.name} has no block {number}")
        key = inside(self._folder, part.name)
        for _ in range(READS):
            try:
                data = self._storage.read(key, number * part.block_bytes, part.block_bytes)
            except FileNotFoundError as error:
                raise Broken(f"{part.name} is missing") from error
            if hashlib.sha256(data).hexdigest() == part.blocks[number]:
                self._keep(part, number, data)
                return data
        raise Broken(
            f"{part.name}: block {number} has another sha256 than the manifest says", found=f"{len(data)} bytes",
            expected=f"sha256 {part.blocks[number]}", mend="an older checkpoint is used; remove this one",
        )  # fmt: skip

    def _keep(self, part: RankFile, number: int, data: bytes) -> None:
        self._newest.pop(part.name, None)
        while self._newest and sum(len(block) for _, block in self._newest.values()) + len(data) > self._cache_bytes:
            self._newest.popitem(last=False)
        self._newest[part.name] = (number, data)

    def _offset(self, part: RankFile, key: str) -> int:
        """Byte at which a tensor begins in a rank's file."""
        if part.name not in self._offsets:
            head = bytearray(8)
            self._read(part, 0, memoryview(head))
            header = bytearray(int.from_bytes(head, "little"))
            self._read(part, 8, memoryview(header))
            self._offsets[part.name] = {
                tensor: 8 + len(header) + int(facts["data_offsets"][0])
                for tensor, facts in json.loads(header).items()
                if tensor != "__metadata__"
            }
        try:
            return self._offsets[part.name][key]
        except KeyError as error:
            raise Broken(f"{part.name} holds no {key}") from error


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
