"""Publishing in a thread, while training goes on. One checkpoint is on its way at a time.

It writes nothing itself (`save` does). The one decision: a checkpoint that could not be published is no reason to stop
training at once; it is handed over as an error by the next `collect`, and whoever asked decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ecellm.errors import EcellmError


class Publisher:
    """Runs one piece of work at a time in a thread of its own."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._step = 0

    @property
    def busy(self) -> bool:
        """Whether work is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, step: int, work: Callable[[], object]) -> None:
        """Run `work`. Wait with `collect` first where work may be under way."""
        if self._thread is not None:
            raise RuntimeError(f"the checkpoint of step {self._step} has not been collected")
        self._step, self._error = step, None
        self._thread = threading.Thread(target=self._run, args=(work,), name=f"publish-{step}", daemon=True)
        self._thread.start()

    def collect(self, *, wait: bool) -> tuple[int, EcellmError | None] | None:
        """(step, its error or None) of the work that has ended; None where nothing has.

        Args:
            wait: for the end of work that is under way.

        Raises:
            whatever else the work raised: a fault of the program.
        """
        if self._thread is None:
            return None
        if wait:
            self._thread.join()
        if self._thread.is_alive():
            return None
        self._thread = None
        if self._error is not None and not isinstance(self._error, EcellmError):
            raise self._error
        return self._step, self._error

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # handed to whoever collects
            self._error = error
