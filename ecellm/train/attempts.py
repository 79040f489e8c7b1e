"""Attempts at one run: each has a number of its own, a line when it began and a line when it ended. No Ray, no torch.

    attempts/attempt-00003.json       number, when, where, how many workers
    attempts/attempt-00003.from.json  the step it went on from, once it has loaded it; 0 at the very beginning
    attempts/attempt-00003.end.json   when, why, the last step; written by itself, else by the attempt that follows it
    attempts/attempt-00003.log        the traceback of what ended it, where something did

The one decision: a number is taken by making a file that was not there, which one caller alone can do. So two drivers
that work on one OUT have different numbers, files of an attempt are never written over, and the highest number is the
one that may publish: all others find that out before they do (`Fence`).
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ecellm.checkpoint.save import LostRace
from ecellm.errors import EcellmError, StorageError
from ecellm.provenance import masked
from ecellm.storage.base import Storage, join

FOLDER = "attempts"
_LOOKS = 10
_BEGUN = re.compile(r"attempts/attempt-(\d{5,})\.json")


def begin(storage: Storage, *, reached: int = 0, **facts: object) -> int:
    """Take the next number, and close what earlier attempts left open. Raises StorageError.

    Args:
        reached: the last step that the attempt before was seen at; 0: not known.
        facts: what is known of the attempt: workers, device, …
    """
    number = newest(storage) + 1
    while not storage.write_new(_key(number), _json(begun=_now(), host=socket.gethostname(), **facts)):
        number += 1
    for earlier in range(1, number):
        seen = {"step": reached} if reached and earlier == number - 1 else {}
        close(storage, earlier, "no word of its end: killed, or still running elsewhere", by=number, **seen)
    return number


def see(storage: Storage, number: int, sleep: Callable[[float], None] = time.sleep) -> None:
    """For every rank: whether it sees what rank 0 has written. Raises StorageError where OUT is not one place."""
    for left in reversed(range(_LOOKS)):
        if storage.exists(_key(number)):
            return
        if left:
            sleep(1.0)  # shared folders may show a new file late
    raise StorageError(
        f"node {socket.gethostname()} does not see {join(storage.root, _key(number))}",
        found="nothing there, after rank 0 has written it",
        expected="one place for all nodes: a shared folder, or an s3:// prefix", mend="give such a place with --out",
    )  # fmt: skip


def newest(storage: Storage) -> int:
    """The highest number that was taken; 0 where there is none."""
    return max((int(found.group(1)) for key, _ in storage.list(FOLDER) if (found := _BEGUN.fullmatch(key))), default=0)


def close(storage: Storage, number: int, reason: str, **facts: object) -> bool:
    """Say how an attempt ended; the first to say so is believed. Returns whether this was the first."""
    key = _key(number, ".end")
    return not storage.exists(key) and storage.write_new(key, _json(ended=_now(), reason=reason, **facts))


def failed(storage: Storage, number: int, error: Exception, **facts: object) -> None:
    """Close an attempt with the first line of what ended it, and keep its traceback.

    Of ranks that fail together only the first leaves a traceback: the others have lost their connection to it. Not
    being able to say so hides no trouble.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()][:1]
    reason = error.what if isinstance(error, EcellmError) else ": ".join([type(error).__name__, *lines])[:300]
    with contextlib.suppress(EcellmError):
        if close(storage, number, masked(reason), **facts):
            keep_log(storage, number, masked("".join(traceback.format_exception(error))))


def went_on(storage: Storage, number: int, step: int) -> None:
    """Say after which step an attempt goes on."""
    storage.write_new(_key(number, ".from"), _json(after=step))


def keep_log(storage: Storage, number: int, text: str) -> str:
    """Put a log beside an attempt, written over none. Returns its location."""
    stem, again = _key(number).removesuffix(".json"), 1
    key = f"{stem}.log"
    while not storage.write_new(key, text.encode()):  # attempt 0: failures before there was one
        again += 1
        key = f"{stem}-{again}.log"
    return join(storage.root, key)


def history(storage: Storage) -> list[dict[str, Any]]:
    """What is known of each attempt, oldest first: `attempt`, the facts of its beginning, `after`, those of its end."""
    found = []
    for number in range(1, newest(storage) + 1):
        said: dict[str, Any] = {"attempt": number}
        for key in (_key(number), _key(number, ".from"), _key(number, ".end")):
            try:
                said |= json.loads(storage.read(key))
            except (FileNotFoundError, ValueError):
                continue
        found.append(said)
    return found


@dataclass(frozen=True)
class Fence:
    """Keeps an attempt that was taken for dead from publishing."""

    storage: Storage
    attempt: int

    def __call__(self) -> None:
        """Raises LostRace where a newer attempt has begun."""
        latest = newest(self.storage)
        if latest > self.attempt:
            raise LostRace(
                f"attempt {latest} has taken over {self.storage.root}", found=f"this is attempt {self.attempt}",
                expected="one attempt at a time to write to one OUT",
                mend="nothing, where the other is a restart of this one; else give one of the runs its own `out`",
            )  # fmt: skip


def _key(number: int, part: str = "") -> str:
    return f"{FOLDER}/attempt-{number:05d}{part}.json"


def _json(**facts: object) -> bytes:
    return (json.dumps(facts, indent=1, default=str) + "\n").encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
