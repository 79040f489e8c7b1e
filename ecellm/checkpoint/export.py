"""From a checkpoint to a Hugging Face folder, on a machine without GPU, DeepSpeed or Ray.

The one decision: one output file at a time is in memory, at most `SHARD_BYTES` (or one larger tensor), and it is filled
from one rank's file after the other; so beside it there are two blocks of that file and a piece of 16 MiB, and a
checkpoint of any size and of any number of ranks is exported in the same space. Adapters are merged into the base
model's weights on the way: they come on top, in fp32, with the one weight that is being merged.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ecellm.checkpoint.layout import COMPLETE, KINDS, MANIFEST, Manifest, Parameter, side_name
from ecellm.checkpoint.restore import fault, read_manifest
from ecellm.checkpoint.slices import SliceReader
from ecellm.config.schema import Storage as Settings
from ecellm.errors import CheckpointError, StorageError
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage

SHARD_BYTES = 2 << 30
_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"
_PREFIX = "base_model.model."
_PIECE = 1 << 22
"""Values that are read at a time."""
_OURS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


def export(
    checkpoint: str, folder: str, settings: Settings, base: str = "", shard_bytes: int = SHARD_BYTES
) -> dict[str, str]:
    """Write the model of a checkpoint as safetensors with config, tokenizer and prompt.json.

    Returns sha256 in hex of each file, by name.

    Args:
        checkpoint: `OUT/checkpoints/step-…`, a folder or s3:// prefix.
        folder: where to write, a folder or s3:// prefix.
        base: local folder of the base model; needed for adapters only.
        shard_bytes: most bytes of one output file.

    Raises:
        CheckpointError: the checkpoint is not whole, or its base model is missing.
        StorageError: either side cannot be reached.
    """
    source, target = open_storage(checkpoint, settings), open_storage(folder, settings)
    manifest = read_manifest(source, "")
    if target.exists(MANIFEST):
        raise CheckpointError(f"{folder} is a checkpoint", expected="a folder of its own", mend="name another DIR")
    side = side_files_of(source, manifest)
    target.delete(COMPLETE)
    for key, _ in list(target.list("")):
        if _OURS.fullmatch(key):  # and nothing below: OUT itself may be the target
            target.delete(key)
    tensors = _merged(manifest, base) if manifest.lora else _whole(manifest)
    # One block is enough for who reads a file from its beginning to its end.
    read = SliceReader(source, "", manifest, cache_bytes=0)

    def fill(needs: Sequence[Parameter]) -> Values:
        return filled(manifest, read, needs, torch.float32 if manifest.lora else getattr(torch, manifest.dtype))

    written = _write_shards(tensors, fill, target, shard_bytes)
    for name, data in side.items():
        written[name] = hashlib.sha256(data).hexdigest()
        target.write(name, data)
    return written


def base_of_adapters(checkpoint: str, settings: Settings) -> tuple[str, str] | None:
    """(base model as the run file named it, revision) of a checkpoint of adapters; None where it is a whole model."""
    lora = read_manifest(open_storage(checkpoint, settings), "").lora
    return (str(lora["base"]), str(lora.get("revision", "main"))) if lora else None


def side_files_of(source: Storage, manifest: Manifest) -> dict[str, bytes]:
    """Files that go beside the weights, each as it was written. Raises CheckpointError."""
    found = {}
    for file in manifest.side:
        data = source.read(file.name) if not (wrong := fault(source, "", file)) else b""
        if wrong or hashlib.sha256(data).hexdigest() != file.sha256:
            raise CheckpointError(
                f"{source.root}: {wrong or file.name + ' changed while it was read'}",
                mend="export an older checkpoint, or train again",
            )  # fmt: skip
        found[side_name(file.name)] = data
    return found


Values = Mapping[str, torch.Tensor]
"""Trained parameters by name, in their shapes."""


@dataclass(frozen=True)
class _Lazy:
    """A tensor that is made when it is its turn, from the trained parameters that it needs."""

    name: str
    bytes: int
    needs: tuple[Parameter, ...]
    make: Callable[[Values], torch.Tensor]


def _whole(manifest: Manifest) -> list[_Lazy]:
    width = getattr(torch, manifest.dtype).itemsize
    return [
        _Lazy(parameter.name, parameter.numel * width, (parameter,), itemgetter(parameter.name))
        for parameter in manifest.parameters
    ]


def filled(manifest: Manifest, read: SliceReader, needs: Sequence[Parameter], dtype: torch.dtype) -> Values:
    """Weights of some parameters, rank's file by rank's file. Raises Broken."""
    values = {parameter.name: torch.empty(parameter.shape, dtype=dtype) for parameter in needs}
    left = {parameter.name: parameter.numel for parameter in needs}
    for part in manifest.parts:
        for name, flat in ((name, value.view(-1)) for name, value in values.items() if name in part.spans):
            start, length = part.spans[name]
            for at in range(start, start + length, _PIECE):
                count = min(_PIECE, start + length - at)
                flat[at : at + count] = read(name, KINDS[0], at, count)
            left[name] -= length
    for parameter in needs:
        if left[parameter.name]:
            read(parameter.name, KINDS[0], 0, parameter.numel)  # which says what is missing
    return values


def _merged(manifest: Manifest, base: str) -> list[_Lazy]:
    """Base weights plus `alpha / rank * B @ A` (Hu et al. 2021), named as the base names them."""
    settings = manifest.lora or {}
    folder = base or str(settings["base"])  # a folder, where nobody has looked for it
    files = _weights_of(folder)
    if not files:
        raise CheckpointError(
            f"{folder}: the base model of these adapters is not there", expected="a folder with safetensors",
            mend="name the folder of the base model: --base DIR",
        )  # fmt: skip
    shapes = {parameter.name: parameter for parameter in manifest.parameters}
    scale, dtype, used = settings["alpha"] / settings["rank"], getattr(torch, manifest.dtype), set()

    def lazy(path: str, key: str) -> _Lazy:
        stem = _PREFIX + key.removesuffix(".weight")
        adapted = stem + _A in shapes and key.endswith(".weight")
        if adapted:
            used.add(stem)

        def make(values: Values) -> torch.Tensor:
            with safe_open(path, "pt") as stream:
                weight = stream.get_tensor(key)
            if adapted:
                weight = weight.float() + scale * (values[stem + _B] @ values[stem + _A])
            cast: torch.Tensor = weight.to(dtype) if weight.is_floating_point() else weight
            return cast

        with safe_open(path, "pt") as stream:
            numel = torch.Size(stream.get_slice(key).get_shape()).numel()
        needs = (shapes[stem + _A], shapes[stem + _B]) if adapted else ()
        return _Lazy(key, numel * dtype.itemsize, needs, make)

    found = []
    for name in files:
        path = os.path.join(folder, name)
        with safe_open(path, "pt") as stream:
            keys = sorted(stream.keys())
        found += [lazy(path, key) for key in keys]
    left = {name.removesuffix(_A) for name in shapes if name.endswith(_A)} - used
    if left:
        raise CheckpointError(
            f"{folder} is not the base model of these adapters", found=f"no weights for {sorted(left)[0]}",
            expected="the model that model.base named", mend="give the right base model",
        )  # fmt: skip
    return found


def _weights_of(folder: str) -> list[str]:
    """The safetensors of a model's folder: those that its index names, since some hold another form beside it."""
    there = os.listdir(folder) if os.path.isdir(folder) else []
    index = "model.safetensors.index.json"
    if index in there:
        with open(os.path.join(folder, index), encoding="utf-8") as stream:
            return sorted(set(json.load(stream)["weight_map"].values()))
    if "model.safetensors" in there:
        return ["model.safetensors"]
    return sorted(name for name in there if name.endswith(".safetensors"))


def _write_shards(
    tensors: list[_Lazy], fill: Callable[[Sequence[Parameter]], Values], target: Storage, shard_bytes: int
) -> dict[str, str]:
    """Returns sha256 in hex of each file, by name.

    Args:
        fill: gives trained parameters, those of one file at a time.
    """
    shards = list(_pack(tensors, shard_bytes))
    where, written = dict[str, str](), dict[str, str]()
    total = 0
    with tempfile.TemporaryDirectory(prefix="ecellm-export-") as temporary:
        for number, shard in enumerate(shards):
            name = "model.safetensors"
            if len(shards) > 1:
                name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
            path = os.path.join(temporary, name)
            try:
                _write(shard, fill, path)
            except SafetensorError as error:  # its own error for a full disk
                raise StorageError(
                    f"a model file could not be written below {tempfile.gettempdir()}", found=str(error),
                    mend="free some disk space, or set TMPDIR to a larger disk",
                ) from error  # fmt: skip
            with open(path, "rb") as stream:
                written[name] = hashlib.file_digest(stream, "sha256").hexdigest()
            target.upload(path, name)
            os.unlink(path)
            where |= {lazy.name: name for lazy in shard}
            total += sum(lazy.bytes for lazy in shard)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        data = json.dumps(index, indent=1, sort_keys=True).encode()
        written["model.safetensors.index.json"] = hashlib.sha256(data).hexdigest()
        target.write("model.safetensors.index.json", data)
    return written


def _write(shard: list[_Lazy], fill: Callable[[Sequence[Parameter]], Values], path: str) -> None:
    # A function of its own, so that its tensors have gone before those of the next file are made.
    values = fill([parameter for lazy in shard for parameter in lazy.needs])
    made = {lazy.name: lazy.make(values).contiguous() for lazy in shard}
    save_file(made, path, metadata={"format": "pt"})


def _pack(tensors: list[_Lazy], most: int) -> Iterator[list[_Lazy]]:
    """Tensors in order, as many in a file as fit; a larger one alone."""
    shard: list[_Lazy] = []
    for lazy in tensors:
        if shard and sum(one.bytes for one in shard) + lazy.bytes > most:
            yield shard
            shard = []
        shard.append(lazy)
    if shard:
        yield shard
