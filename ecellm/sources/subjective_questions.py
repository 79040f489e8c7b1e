"""Format `subjqa`: a question, one review, and the span of it that people marked as the answer (SubjQA).

The review is cut to a window of whole words: around the span where there is one, anywhere where there is none, by the
same rule, so that its length and place tell nothing. Several people read some reviews: the majority decides, and a tie
is left out. A span such as `fast` is no written answer, so these questions are not descriptive and AG passes them over.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ecellm.config.schema import SourceFile
from ecellm.sources.documents import tidy
from ecellm.sources.lines import File, table_rows
from ecellm.sources.records import Question
from ecellm.sources.tally import Tally

NOT_FOUND = "ANSWERNOTFOUND"
"""Marks `no answer`; the files also end every review with it."""
WINDOW = 75
"""Words of a review that are shown."""
COLUMNS = ("item_id", "question", "review_id", "review", "human_ans_spans", "human_ans_indices")


@dataclass(slots=True)
class _Read:
    """A review read for a question: how often no answer was found, and where answers were (start, end, text)."""

    review: str
    unanswered: int = 0
    spans: list[tuple[int, int, str]] = field(default_factory=list)


def read_subjqa(place: File, source: SourceFile, tally: Tally) -> Iterator[Question]:
    """One Question for each question and review on which its readers agree. Raises DataError."""
    met: dict[tuple[str, str, str], _Read] = {}
    for number, row in table_rows(place, tally, COLUMNS):
        review = row["review"].removesuffix(NOT_FOUND).rstrip()
        key = (row["item_id"].strip(), tidy(row["question"]), row["review_id"].strip())
        if not review or not all(key):
            tally.reject(number, "item_id, question, review_id or review is missing", place.location)
            continue
        read = met.setdefault(key, _Read(review))
        if row["human_ans_spans"] == NOT_FOUND:
            read.unanswered += 1
        elif span := _span(review, row):
            read.spans.append(span)
        else:
            tally.reject(number, f"{row['human_ans_spans']!r} is not at {row['human_ans_indices']}", place.location)
            continue
        tally.good()
    for (product, text, review_id), read in met.items():
        if len(read.spans) == read.unanswered:
            tally.unused(2 * read.unanswered)
        else:
            yield _question(product, text, review_id, read, source)


def _span(review: str, row: dict[str, str]) -> tuple[int, int, str] | None:
    """Where the marked answer is; its text may be spaced and clipped otherwise than the review, so letters decide."""
    try:
        start, end = ast.literal_eval(row["human_ans_indices"])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not (type(start) is type(end) is int and 0 <= start < end):
        return None
    text = review[start:end]
    same = _letters(text) == _letters(row["human_ans_spans"]) != ""
    return (start, end, tidy(text)) if same else None


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def _question(product: str, text: str, review_id: str, read: _Read, source: SourceFile) -> Question:
    answerable = len(read.spans) > read.unanswered
    key = f"{product}/{review_id}/{text}"
    start, end, answer = Counter(read.spans).most_common(1)[0][0] if answerable else (0, 0, "")
    return Question(
        id="subjqa-" + hashlib.sha256(key.encode()).hexdigest()[:16],
        product=product,
        category=source.category,
        domain=source.domain,
        text=text,
        descriptive=False,
        snippets=(window(key, read.review, (start, end) if answerable else None),),
        answerable=answerable,
        answers=((answer, 1, 1),) if answerable else (),
        split=source.split,
    )


def window(key: str, review: str, span: tuple[int, int] | None) -> str:
    """At most WINDOW whole words of the review that hold `span` (characters), at a place that is a function of `key`.

    Where the span is longer than the window, the window is as long as the span.
    """
    words = [match.span() for match in re.finditer(r"\S+", review)]
    size, place = len(words), int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    first, last = 0, -1
    if span:
        inside = [number for number, (start, end) in enumerate(words) if start < span[1] and end > span[0]]
        first, last = inside[0], inside[-1]
    length = max(min(WINDOW, size), last - first + 1)
    lowest = max(0, last - length + 1) if span else 0
    highest = min(first, size - length) if span else size - length
    begin = lowest + place % (highest - lowest + 1)
    shown = words[begin : begin + length]
    return tidy(review[shown[0][0] : shown[-1][1]])
