"""Format `amazon_qa_literal`: Amazon's public questions and answers, one Python literal a line, not JSON.

Read as a literal, never run as code. There are no votes, no reviews and no word on answerability, so a Question
from here has an empty document, `answerable` None and an answer with no votes: alone it serves neither AP nor AG.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ecellm.config.schema import SourceFile
from ecellm.sources.documents import tidy
from ecellm.sources.lines import File, json_objects
from ecellm.sources.records import Question
from ecellm.sources.tally import Tally


def read_amazon_qa_literal(place: File, source: SourceFile, tally: Tally) -> Iterator[Question]:
    """One Question for each distinct product, question and answer. Raises DataError."""
    met: set[str] = set()
    for number, value in json_objects(place, tally, literals=True):
        fields = [value.get(name) for name in ("asin", "question", "answer")]
        if not all(isinstance(text, str) and text.strip() for text in fields):
            tally.reject(number, "asin, question or answer is missing", place.location)
            continue
        product, question, answer = (tidy(str(text)) for text in fields)
        key = hashlib.sha256(f"{product}\0{question}\0{answer}".encode()).hexdigest()[:16]
        if key in met:
            tally.skip()
            continue
        met.add(key)
        tally.good()
        yield Question(
            id=f"amazon-qa-{key}", product=product, category=source.category, domain=source.domain, text=question,
            descriptive=value.get("questionType") == "open-ended", snippets=(), answerable=None,
            answers=((answer, 0, 0),), split=source.split,
        )  # fmt: skip
