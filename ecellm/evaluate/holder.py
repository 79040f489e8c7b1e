"""What runs in a worker: one model at a time, answers written to the log before anybody is told. No Ray here.

A plain class, so that it can be tried without Ray, and used in the driver for endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ecellm.config.schema import Run
from ecellm.evaluate.engines.base import Engine, Facts
from ecellm.evaluate.log import Answer, LogWriter
from ecellm.evaluate.requests import Request
from ecellm.evaluate.voices import Voice, answers_storage, log_folder, open_engine
from ecellm.nodes import same_code

MEMORY_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""For glibc, in a worker's environment: memory that a layer gives back is kept for the next one. Fetched from the
system anew each time, every page of it is cleared and mapped again, which took 15 to 25 % of a forward pass."""


class Holder:
    """Answers units of any voice; loads a voice when it is first asked for and lets the one before it go."""

    def __init__(
        self, run_json: str, writer: str, code: str = "", stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """`code`: digest of the driver's code, where this runs elsewhere. Raises ClusterError where it is another.

        `stopping` is for endpoints, which are asked from the driver; workers are ended by it.
        """
        if code:
            same_code(code)
        self.run = Run.model_validate_json(run_json)
        self.writer, self.stopping = writer, stopping
        self._voice: Voice | None = None
        self._engine: Engine | None = None
        self._parts: dict[str, int] = {}

    def answer(self, voice: Voice, requests: tuple[Request, ...]) -> Iterator[list[Answer]]:
        """Answers in any order, in groups, each group on storage before it is handed out."""
        engine = self._held(voice)
        log = LogWriter(answers_storage(self.run), log_folder(voice, self.run), self.writer)
        log.number = self._parts.get(voice.name, 0)
        try:
            for answer in engine.answer(requests):
                if told := log.add([answer]):
                    yield told
        finally:
            last = log.flush()  # what came before a failure is kept too
            self._parts[voice.name] = log.number
        if last:
            yield last

    def facts(self) -> Facts:
        """What the present engine has done so far."""
        return self._engine.facts() if self._engine else Facts()

    def hold(self, voice: Voice) -> None:
        """Have a voice ready."""
        self._held(voice)

    def _held(self, voice: Voice) -> Engine:
        if self._engine is None or self._voice != voice:
            self._engine = None  # its memory first
            if voice.engine == "transformers":
                _settle(self.run.cluster.cpus_per_worker)
            self._engine, self._voice = open_engine(voice, self.run, self.stopping), voice
        return self._engine


def _settle(threads: int) -> None:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
