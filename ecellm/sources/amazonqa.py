"""AmazonQA: questions with review snippets and community answers, JSON lines, one file a split.

A file holds many categories. `category` in the run file picks one of them; a file that names none is of it wholly.
Cell phones are the data set's out-of-domain category, whatever the run file says of the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.sources.lines import Place, id_of, json_objects, text_of
from ecellm.sources.mave import split_of
from ecellm.sources.records import Question
from ecellm.sources.tally import Tally

HELD_OUT = "Cell_Phones_and_Accessories"


def read(place: Place, source: SourceFile, tally: Tally) -> Iterator[Question]:
    """One Question a line; a line without a question or with malformed lists is rejected."""
    split, name = source.split or split_of(os.path.basename(place.location)), place.location
    for number, line in json_objects(place, tally):
        text = text_of(line.get("questionText"))
        category = text_of(line.get("category")) or source.category
        if not text:
            tally.reject(number, "no questionText", name)
            continue
        try:
            snippets, answers = _snippets(line), _answers(line)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):
            tally.reject(number, "review_snippets or answers are malformed", name)
            continue
        if source.category and category != source.category:
            tally.skip()
            continue
        tally.good()
        product = id_of(line.get("asin"))
        flag = line.get("is_answerable")
        yield Question(
            id=id_of(line.get("qid")) or hashlib.sha256(f"{product}\n{text}".encode()).hexdigest()[:16],
            product=product, category=category, domain="OOD" if category == HELD_OUT else source.domain, text=text,
            descriptive=line.get("questionType") == "descriptive", snippets=snippets,
            answerable=bool(flag) if isinstance(flag, int | float) and flag in (0, 1) else None, answers=answers,
            split=split, line=number,
        )  # fmt: skip


def _snippets(line: dict[str, Any]) -> tuple[str, ...]:
    return tuple(text for part in line.get("review_snippets") or [] if (text := text_of(part)))


def _answers(line: dict[str, Any]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for answer in line.get("answers") or []:
        helpful, votes = answer.get("helpful") or (0, 0)
        if text := text_of(answer.get("answerText")):
            found.append((text, _votes(helpful), _votes(votes)))
    return tuple(found)


def _votes(value: Any) -> int:
    return max(-1, min(int(value), 10**9))
