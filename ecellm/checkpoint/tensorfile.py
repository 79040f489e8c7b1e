"""A safetensors file as a stream over tensors in memory: nothing is copied, and nothing goes to a local disk first.

The format is eight bytes of header length, a JSON header, and the tensors one after the other (safetensors 0.x). The
one decision: reading it holds no lock of the interpreter for long, so that a checkpoint can be hashed and sent in a
thread while training goes on; the library's own writer would hold it for the whole file.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import torch

BLOCK_BYTES = 16 << 20


def raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied."""
    values: Any = tensor.detach().numpy()
    return memoryview(values).cast("B") if tensor.numel() else memoryview(b"")


class TensorFile(io.RawIOBase):
    """Seekable, readable bytes of a safetensors file of contiguous fp32 CPU tensors, in the order given."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        header: dict[str, object] = {}
        at = 0
        views = []
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
                raise ValueError(f"{name}: {tensor.dtype} on {tensor.device}, expected contiguous fp32 on the CPU")
            view = raw(tensor)
            header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + len(view)]}
            at += len(view)
            views.append(view)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        self._parts = [(0, memoryview(head))]
        begin = len(head)
        for view in views:
            self._parts.append((begin, view))
            begin += len(view)
        self.size, self._at, self._part = begin, 0, 0

    def digests(self, block_bytes: int = BLOCK_BYTES) -> tuple[str, tuple[str, ...]]:
        """sha256 of the whole, and of each block."""
        whole, blocks = hashlib.sha256(), []
        self.seek(0)
        while block := self.read(block_bytes):
            whole.update(block)
            blocks.append(hashlib.sha256(block).hexdigest())
        self.seek(0)
        return whole.hexdigest(), tuple(blocks)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        self._part = 0
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = self.size - self._at if size is None or size < 0 else min(size, self.size - self._at)
        out = bytearray(max(0, wanted))
        self._fill(memoryview(out))
        return bytes(out)

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        return self._fill(view[: max(0, min(len(view), self.size - self._at))])

    def _fill(self, out: memoryview) -> int:
        done = 0
        while done < len(out):
            start, part = self._parts[self._part]
            if not start <= self._at < start + len(part):
                self._part = next(
                    i for i, (first, view) in enumerate(self._parts) if first <= self._at < first + len(view)
                )  # fmt: skip
                continue
            from_ = self._at - start
            count = min(len(out) - done, len(part) - from_)
            out[done : done + count] = part[from_ : from_ + count]
            done += count
            self._at += count
            if from_ + count == len(part) and self._part + 1 < len(self._parts):
                self._part += 1
        return done
