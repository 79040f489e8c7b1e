"""The command line: arguments to a checked run, to a dry run or an action, to an exit code.

Not a place for work: each command is a few lines that call a stage. `main` is the only place that turns an error into
a message and an exit code, and the only one that reads `argv`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ecellm.cli.app import app
from ecellm.cli.exits import StopRequest, exit_code_of, stop_on_signals, tell_code

__all__ = ["app", "main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code (DESIGN 2)."""
    stop_on_signals()
    try:
        app(args=list(sys.argv[1:] if argv is None else argv), prog_name="ecellm")
    except SystemExit as left:
        tell_code(left.code)
        raise
    except (Exception, KeyboardInterrupt, StopRequest) as trouble:  # the one place where every error ends
        code = exit_code_of(trouble)
        tell_code(code)
        sys.exit(code)
