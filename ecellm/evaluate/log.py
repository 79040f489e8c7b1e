"""The answers of one model so far, append-only, so that a killed evaluation asks only what is missing.

A log is a folder of parts, each written whole and never again: the same on a disk and in S3, where nothing can be
appended. Whoever answers writes its own parts, before it tells anybody, so an answer that was given is never lost with
the driver. Answers are keyed by content (`requests`), so answers to other questions may lie in the same log and are
ignored. It is not the result: `predictions.jsonl` is.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from ecellm.errors import StorageError
from ecellm.storage.base import Storage, join

FLUSH_ANSWERS, FLUSH_SECONDS = 256, 1.0
"""A part is written at the first of these, whether or not more answers come; a kill loses no more than that, and what
was under way."""
MOST_PARTS = 200
"""A log with more is rewritten as one part before it is used."""
UNANSWERED = "unanswered"
"""Finish reason of a line that is no answer: the bill of tries that led to none. Its key is the question's and, after
a slash, chance, so it stands in nobody's way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to one request."""

    key: str
    text: str
    tokens: int
    finish_reason: str
    shares: dict[str, float] | None = None
    """Under `choice`: the probability of each possible answer among them."""
    bill: dict[str, float] | None = None
    """Of an endpoint: prompt and answer tokens and tries, over all tries that it took."""


class LogWriter:
    """One writer's parts of the log in `folder`. `clock` gives seconds; tests put their own there.

    What is due while its user waits for the next answer is written by a thread; the user is told at its next call.
    """

    def __init__(
        self, storage: Storage, folder: str, writer: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.storage, self.folder, self.clock = storage, folder, clock
        self.writer = writer or uuid.uuid4().hex[:12]
        self.pending: list[Answer] = []
        self.flushed, self.number = clock(), 0
        self._untold: list[Answer] = []
        self._lock = threading.Lock()
        self._later: threading.Timer | None = None

    def add(self, answers: Sequence[Answer]) -> list[Answer]:
        """Keep answers. Returns those that are on storage now and were not told of yet: none until a part is due."""
        with self._lock:
            if not self.pending:
                self.flushed = self.clock()
            self.pending.extend(answers)
            if len(self.pending) >= FLUSH_ANSWERS or self.clock() - self.flushed >= FLUSH_SECONDS:
                self._write()
            elif self.pending and self._later is None:
                self._later = threading.Timer(FLUSH_SECONDS, self._overdue)
                self._later.daemon = True
                self._later.start()
            return self._tell()

    def flush(self) -> list[Answer]:
        """Write what is pending as the next part, and return what was not told of yet. Raises StorageError."""
        with self._lock:
            self._write()
            return self._tell()

    def _overdue(self) -> None:
        with self._lock, suppress(StorageError):  # what could not be written is pending still: the next call tells
            self._write()

    def _write(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self.pending:
            return
        self.storage.write(_part(self.folder, self.writer, self.number + 1), _lines(self.pending))
        self.number += 1
        self._untold += self.pending
        self.pending = []
        self.flushed = self.clock()

    def _tell(self) -> list[Answer]:
        told, self._untold = self._untold, []
        return told


def read_log(storage: Storage, folder: str, writer: str = "") -> dict[str, Answer]:
    """Every answer by key, or those of one writer.

    A question may have been answered twice, by runs that share a log or by a worker that was given up too early; the
    answer in the first part by name holds, for every reader. Raises StorageError where a part is broken.
    """
    found, parts = _all(storage, f"{folder}/part-{writer}")
    if not writer and len(parts) > MOST_PARTS:
        # Whole before the others go, so that a kill in between leaves every answer, some of them twice.
        storage.write(_part(folder, f"all{uuid.uuid4().hex[:9]}", 0), _lines(list(found.values())))
        for part in parts:
            storage.delete(part)
    return found


def _all(storage: Storage, begins: str) -> tuple[dict[str, Answer], list[str]]:
    """Answers of the parts whose keys begin so, and those keys, sorted."""
    folder = begins.rpartition("/")[0]
    for _ in range(3):
        found: dict[str, Answer] = {}
        keys = (key for key, _ in storage.list(f"{folder}/"))
        parts = sorted(key for key in keys if key.startswith(begins) and key.endswith(".jsonl"))
        try:
            for part in parts:
                for answer in _read(storage, part):
                    found.setdefault(answer.key, answer)
        except FileNotFoundError:  # another run that shares the log has made one part of them: look again
            continue
        return found, parts
    raise StorageError(
        f"{join(storage.root, folder)}: parts of the log go while they are read", expected="a log that stands",
        mend="run the same command again",
    )  # fmt: skip


def _part(folder: str, writer: str, number: int) -> str:
    return f"{folder}/part-{writer}-{number:06d}.jsonl"


def _lines(answers: Sequence[Answer]) -> bytes:
    found = [{key: value for key, value in asdict(answer).items() if value is not None} for answer in answers]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in found).encode()


def _read(storage: Storage, part: str) -> Iterator[Answer]:
    lines = storage.read(part).decode("utf-8", errors="replace").split("\n")
    torn = lines.pop()  # what follows the last newline: empty, or a line that was never finished
    for number, line in enumerate(lines, 1):
        try:
            yield Answer(**json.loads(line))
        except (ValueError, TypeError) as fault:
            if number == len(lines) and not torn:
                break
            raise StorageError(
                f"{join(storage.root, part)}:{number}: not an answer",
                found=line[:80],
                expected="one JSON object with key, text, tokens, finish_reason",
                mend="delete this part; its questions are asked again",
            ) from fault
