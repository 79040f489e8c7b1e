"""Ranges of parameters and moments out of the files of a checkpoint, whatever number of ranks wrote them.

The one decision: only whole blocks are read, and none is used before its sha256 is the manifest's.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict

import torch

from ecellm.checkpoint.layout import Manifest, RankFile, inside, tensor_key
from ecellm.checkpoint.published import READS, Broken
from ecellm.checkpoint.tensorfile import raw
from ecellm.errors import CheckpointError
from ecellm.storage.base import Storage

_CACHE_BYTES = 1 << 30
"""Most bytes of blocks that a reader holds: the newest one of each file, files read longest ago leave first."""


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
