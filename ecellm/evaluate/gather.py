"""Answers back to rows: exactly one for each row, in the rows' order.

A row that got two answers or none is an error of this program, never a silent hole in a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ecellm.errors import ClusterError
from ecellm.evaluate.log import Answer
from ecellm.evaluate.requests import Asked
from ecellm.records import Prediction
from ecellm.tasks.registry import task


class Gather:
    """Collects answers to a known set of questions."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.open = set(keys)
        self.found: dict[str, Answer] = {}

    def add(self, answers: Iterable[Answer]) -> None:
        """Take answers in any order. Raises ClusterError for a second answer, or one that nobody asked for."""
        for answer in answers:
            if answer.key not in self.open:
                twice = answer.key in self.found
                raise ClusterError(
                    "a question was answered twice" if twice else "an answer to a question that was not asked",
                    found=f"key {answer.key[:16]}…",
                    expected="each question answered once",
                    mend="report this with the log; answers already kept are not lost",
                )
            self.open.remove(answer.key)
            self.found[answer.key] = answer

    def predictions(self, asked: Sequence[Asked]) -> list[Prediction]:
        """One prediction for each row, in the order given. Raises ClusterError where an answer is missing."""
        missing = [row.id for row in asked if row.key not in self.found]
        if missing:
            raise ClusterError(
                f"{len(missing)} of {len(asked)} rows have no answer",
                found=f"first: {missing[0]}",
                expected="one answer for each row",
                mend="run the same command again: it asks only what is missing",
            )
        return [_prediction(row, self.found[row.key]) for row in asked]


def _prediction(row: Asked, answer: Answer) -> Prediction:
    text = _before(answer.text, row.end) if row.end else answer.text
    return Prediction(
        id=row.id,
        prompt_sha256=row.prompt_sha256,
        text=text,
        parsed=task(row.task).parse(text),
        finish_reason=answer.finish_reason if text == answer.text else "stop",
        tokens=answer.tokens,
        decoding=row.decoding,
        shares=answer.shares,
    )


def _before(text: str, end: str) -> str:
    """A reply up to where it goes on with `end`, or with as much of it as there was room for."""
    for place in range(len(text)):
        if text[place] == end[0] and end.startswith(text[place : place + len(end)]):
            return text[:place].rstrip()
    return text
