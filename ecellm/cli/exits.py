"""Errors to exit codes and messages. The only printer of errors.

75 means "stopped with the state saved, run me again": `Stopped` says it, and a signal to a stage that keeps what it has
finished. Ctrl-C is 130. `ECELLM_CAUSE_FILE` names a file that gets the cause in one line, for what started us.
An error nobody foresaw ends with 1 and the place of its traceback, never with 0.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import signal
import sys
import tempfile
import traceback
from types import FrameType

from rich.markup import escape

from ecellm.console import console
from ecellm.errors import EcellmError, Stopped

INTERRUPTED = 130
HEADINGS = {2: "run file or command line", 3: "data", 4: "storage or checkpoint", 5: "cluster"}


class StopRequest(BaseException):
    """A signal that asks to stop, in a stage that has no more to save than what it has written already.

    No KeyboardInterrupt, which the command line's library would turn into an end of its own.
    """


def stop_on_signals() -> None:
    """Make SIGTERM and SIGUSR1 end in the same clean-up as Ctrl-C; training replaces this with its own."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StopRequest

    try:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, stop)
    except ValueError:  # not in the main thread, as when a test or a notebook calls us
        return


def exit_code_of(trouble: BaseException) -> int:
    """Say what happened on stderr and give the exit code."""
    known = ours(trouble)
    if isinstance(known, Stopped):
        console.print(f"[yellow]stopped[/yellow]  {escape(str(known))}")
        return known.exit_code
    if known is not None:
        _tell(HEADINGS.get(known.exit_code, "error"), str(known))
        return known.exit_code
    if isinstance(trouble, StopRequest):
        console.print("[yellow]stopped[/yellow]  finished stages and answers stay; run the same command again to go on")
        return Stopped.exit_code
    if isinstance(trouble, KeyboardInterrupt):
        console.print("[yellow]interrupted[/yellow]  finished stages stay; run the same command again to go on")
        return INTERRUPTED
    if isinstance(trouble, FileNotFoundError):
        _tell(
            HEADINGS[3],
            f"{trouble.filename or trouble}: missing\n  mend      check the path, or run the stage that makes it",
        )
        return 3
    if isinstance(trouble, OSError) and trouble.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        _tell(HEADINGS[4], f"{trouble}\n  mend      free some space, then run the same command again")
        return 4
    cause = f"{type(trouble).__name__}: {(str(trouble).strip().splitlines() or [''])[0]}"
    _tell(
        "unexpected",
        f"{cause}\n  traceback {_traceback_file(trouble)}\n  mend      send that file with a report, please",
    )
    return 1


def tell_code(code: object) -> None:
    """Say the exit code as the last line where whoever started us hears no other (`ecellm submit`)."""
    if os.environ.get("ECELLM_TELL_EXIT"):
        sys.stderr.write(f"ecellm: exit code {code if isinstance(code, int) else 0 if code is None else 1}\n")
        sys.stderr.flush()


def ours(trouble: BaseException) -> EcellmError | None:
    """The error of our family in a chain: an error of a Ray worker comes wrapped in Ray's own."""
    seen: set[int] = set()
    queue: list[BaseException] = [trouble]
    while queue:
        one = queue.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, EcellmError) and type(one).__module__.startswith("ecellm."):  # not a class that Ray made up
            return one
        inner = (getattr(one, "cause", None), one.__cause__, one.__context__)
        queue += [other for other in inner if isinstance(other, BaseException)]
    return None


def _tell(heading: str, text: str) -> None:
    cause = os.environ.get("ECELLM_CAUSE_FILE")  # a batch script's, or a pod's /dev/termination-log
    if cause:
        with contextlib.suppress(OSError), open(cause, "w", encoding="utf-8") as file:
            file.write(text.partition("\n")[0] + "\n")
    console.print(f"[bold red]error[/bold red] [dim]({heading})[/dim]  {escape(text)}")


def _traceback_file(trouble: BaseException) -> str:
    name = f"ecellm-{datetime.datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path = os.path.join(tempfile.gettempdir(), name)
    try:
        with open(path, "w", encoding="utf-8") as file:
            traceback.print_exception(trouble, file=file)
    except OSError as fault:
        return f"could not be written ({fault})"
    return path
