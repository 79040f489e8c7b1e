"""The answers of one system so far, append-only, so that a killed evaluation asks only what is missing.

A log is a folder of numbered parts, each written whole and never again: the same on a disk and in S3, where nothing
can be appended. Answers are keyed by content (`requests`), so answers to other questions may lie in the same log and
are ignored. It is not the result: `predictions.jsonl` is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ecellm.errors import StorageError
from ecellm.storage.base import Storage, join

FLUSH_ANSWERS, FLUSH_SECONDS = 256, 2.0
"""A part is written at the first of these; a kill loses no more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to one request."""

    key: str
    text: str
    tokens: int
    finish_reason: str


class AnswerLog:
    """Answers in `folder` of a storage. `clock` gives seconds; tests put their own there."""

    def __init__(self, storage: Storage, folder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.storage, self.folder, self.clock = storage, folder, clock
        self.parts = [key for key, _ in storage.list(f"{folder}/") if key.endswith(".jsonl")]
        self.pending: list[Answer] = []
        self.flushed = clock()

    def answers(self) -> dict[str, Answer]:
        """Every answer by key. Raises StorageError where one question has two different answers."""
        found: dict[str, Answer] = {}
        for part in self.parts:
            for answer in _read(self.storage, part):
                if found.setdefault(answer.key, answer) != answer:
                    raise _two_answers(join(self.storage.root, part), answer.key)
        return found

    def add(self, answers: list[Answer]) -> None:
        """Keep answers; they are on storage after the next flush."""
        self.pending.extend(answers)
        if len(self.pending) >= FLUSH_ANSWERS or self.clock() - self.flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as the next part. Raises StorageError."""
        if not self.pending:
            return
        lines = "".join(json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in self.pending)
        number = 1 + max((_number(part) for part in self.parts), default=0)
        while not self.storage.write_new(key := f"{self.folder}/part-{number:06d}.jsonl", lines.encode()):
            number += 1
        self.parts.append(key)
        self.pending, self.flushed = [], self.clock()


def _number(part: str) -> int:
    digits = part.rsplit("-", 1)[-1].removesuffix(".jsonl")
    return int(digits) if digits.isdigit() else 0


def _read(storage: Storage, part: str) -> list[Answer]:
    lines = storage.read(part).decode("utf-8", errors="replace").split("\n")
    torn = lines.pop()  # what follows the last newline: empty, or a line that was never finished
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Answer(**json.loads(line)))
        except (ValueError, TypeError) as fault:
            if number == len(lines) and not torn:
                break
            raise StorageError(
                f"{join(storage.root, part)}:{number}: not an answer",
                found=line[:80],
                expected="one JSON object with key, text, tokens, finish_reason",
                mend="delete this part; its questions are asked again",
            ) from fault
    return found


def _two_answers(where: str, key: str) -> StorageError:
    return StorageError(
        f"{where}: a second, different answer to one question",
        found=f"key {key[:16]}…",
        expected="one answer for each question",
        mend="delete the folder of this log and evaluate again",
    )
