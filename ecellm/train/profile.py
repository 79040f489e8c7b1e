"""A trace of a few training steps for TensorBoard or chrome://tracing, by torch's own profiler. Rank 0 only.

The one decision: the first step of an attempt is not traced, since it allocates and loads what later ones find. A trace
that cannot be kept is told and ends nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch

from ecellm.errors import EcellmError
from ecellm.storage.base import Storage, join

FOLDER = "profile"


class Profile:
    """Traces `steps` steps after the first; 0: nothing at all.

    Args:
        name: of the trace below OUT/profile, without its ending.
        say: takes the line about where the trace lies, or why there is none.
    """

    def __init__(self, storage: Storage, steps: int, name: str, say: Callable[[str], None]) -> None:
        self._storage, self._steps, self._key = storage, steps, f"{FOLDER}/{name}.json.gz"
        self._say = say
        self._done = 0
        self._profiler: Any = None

    def step(self) -> None:
        """A step has ended."""
        if not self._steps or self._done > self._steps:
            return
        self._done += 1
        if self._done == 1:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities, record_shapes=True, profile_memory=True)
            self._profiler.start()
        elif self._done > self._steps:
            self._write(self._steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profiler is not None and kind is None:
            self._write(self._done - 1)

    def _write(self, steps: int) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        try:
            with tempfile.TemporaryDirectory(prefix="ecellm-profile-") as folder:
                path = os.path.join(folder, "trace.json.gz")
                profiler.export_chrome_trace(path)
                self._storage.upload(path, self._key)
        except (EcellmError, OSError) as error:
            what = error.what if isinstance(error, EcellmError) else str(error)
            self._say(f"the trace of {steps} steps could not be kept, training goes on: {what}")
        else:
            self._say(f"trace of {steps} steps: {join(self._storage.root, self._key)}")
