"""Find the newest whole checkpoint and read each rank's part of it, at any number of ranks.

The one decision: a marker alone is not believed. Every block that is read is compared with its sha256 in the manifest,
and all ranks have their part in memory before any of it is loaded; a checkpoint that fails is passed over with a line
that says why. It counts as broken only where rank 0 finds so too: one machine's network says nothing of what is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch

from ecellm.checkpoint.layout import (
    COMPLETE,
    FOLDER,
    KINDS,
    File,
    Manifest,
    inside,
    parse_manifest,
    step_folder,
    step_of,
)
from ecellm.checkpoint.published import READS, Broken, published
from ecellm.checkpoint.save import Gather
from ecellm.checkpoint.slices import SliceReader
from ecellm.errors import CheckpointError, EcellmError, StorageError
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
