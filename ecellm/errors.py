"""The error family: one root, one kind for each person who must act, each with its exit code.

    EcellmError                     never raised itself
    ├── ConfigError           2     whoever wrote the run file or the command line
    ├── DataError             3     whoever owns the raw data, the rows or the token shards
    ├── StorageError          4     whoever owns the disk or the bucket
    │   └── CheckpointError   4     a checkpoint or model folder that is not whole or does not fit
    ├── ClusterError          5     whoever runs the machines: a worker, a node or Ray itself
    └── Stopped              75     nobody: stopped on request, state saved, run me again

Every message says where, what was found, what was expected and the mend. Errors survive pickling, since they
travel from Ray workers to the driver.
"""

from __future__ import annotations


class EcellmError(Exception):
    """A fault with a place, a finding, an expectation and a mend.

    Args:
        what: one line: the place (file, line, setting) and the fault.
        found: what was there.
        expected: what would have been right.
        mend: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, found: str = "", expected: str = "", mend: str = "") -> None:
        self.what, self.found, self.expected, self.mend = what, found, expected, mend
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = (("found", self.found), ("expected", self.expected), ("mend", self.mend))
        return "\n".join([self.what, *(f"  {name:<9} {text}" for name, text in parts if text)])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.found, self.expected, self.mend))


def _rebuild(kind: type[EcellmError], what: str, found: str, expected: str, mend: str) -> EcellmError:
    return kind(what, found=found, expected=expected, mend=mend)


class ConfigError(EcellmError):
    """The run file or the command line is wrong."""

    exit_code = 2


class DataError(EcellmError):
    """Raw data, rows or token shards are missing, broken or do not fit."""

    exit_code = 3


class StorageError(EcellmError):
    """A folder or bucket cannot be read or written."""

    exit_code = 4


class CheckpointError(StorageError):
    """A checkpoint or model folder is not whole, or belongs to another model."""


class ClusterError(EcellmError):
    """A worker, a node or Ray failed."""

    exit_code = 5


class Stopped(EcellmError):
    """Stopped on request with the state saved: run the same command again to go on."""

    exit_code = 75
