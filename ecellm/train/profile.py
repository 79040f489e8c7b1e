"""A trace of a few training steps for TensorBoard or chrome://tracing, by torch's own profiler. Rank 0 only.

The one decision: the first step of an attempt is not traced, since it allocates and loads what later ones find.
"""

from __future__ import annotations

import os
import tempfile
from types import TracebackType
from typing import Any, Self

import torch

from ecellm.storage.base import Storage, join

FOLDER = "profile"


class Profile:
    """Traces `steps` steps after the first; 0: nothing at all.

    Args:
        name: of the trace below OUT/profile, without its ending.
    """

    def __init__(self, storage: Storage, steps: int, name: str) -> None:
        self._storage, self._steps, self._key = storage, steps, f"{FOLDER}/{name}.json.gz"
        self._done = 0
        self._profiler: Any = None

    def step(self) -> str:
        """A step has ended. Where the trace lies, once it is written; empty else."""
        if not self._steps or self._done > self._steps:
            return ""
        self._done += 1
        if self._done == 1:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities, record_shapes=True, profile_memory=True)
            self._profiler.start()
            return ""
        return self._write() if self._done > self._steps else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profiler is not None and kind is None:
            self._write()

    def _write(self) -> str:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        with tempfile.TemporaryDirectory(prefix="ecellm-profile-") as folder:
            path = os.path.join(folder, "trace.json.gz")
            profiler.export_chrome_trace(path)
            self._storage.upload(path, self._key)
        return join(self._storage.root, self._key)
