"""A rank's slices copied to host memory, so that training may go on while they are written.

The one decision: the memory is kept and used again by the next copy (pinned where there is a GPU), since asking the
system for it anew costs more than the copy itself. So one copy is in use at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ecellm.checkpoint.layout import Slice


class HostCopy:
    """Memory for one copy of one rank's slices."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], torch.Tensor] = {}

    def take(self, slices: Iterable[Slice]) -> list[Slice]:
        """Copies of slices (fp32, flat, CPU). They hold until the next call."""
        taken, gpu = [], False
        for piece in slices:
            source, key = piece.tensor.detach(), (piece.name, piece.kind)
            buffer = self._buffers.get(key)
            if buffer is None or buffer.numel() != source.numel():
                gpu = source.device.type == "cuda"
                buffer = torch.empty(source.numel(), dtype=torch.float32, pin_memory=gpu)
                self._buffers[key] = buffer
            gpu |= source.device.type == "cuda"
            buffer.copy_(source, non_blocking=True)
            taken.append(Slice(piece.name, piece.kind, piece.start, piece.numel_total, buffer))
        if gpu:
            torch.cuda.synchronize()
        return taken
