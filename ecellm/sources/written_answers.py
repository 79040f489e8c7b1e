"""Format `hetpqa_answers`: questions with a snippet and the answer that people wrote from it (HetPQA).

Every question here has its answer, so the file serves AG and never AP. The document is the snippet among others of the
same product, as AmazonQA's documents hold snippets beside the point; copying the first one is then no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ecellm.config.schema import SourceFile
from ecellm.sources.documents import short, tidy, with_answer
from ecellm.sources.lines import File, table_rows
from ecellm.sources.records import Question
from ecellm.sources.tally import Tally

COLUMNS = ("ASIN", "question", "candidate", "answer")


def read_hetpqa_answers(place: File, source: SourceFile, tally: Tally) -> Iterator[Question]:
    """One Question for each line whose snippet is short enough. Raises DataError.

    Reads the file whole, to know a product's other snippets.
    """
    rows: list[tuple[str, str, str, str]] = []
    snippets: dict[str, dict[str, set[str]]] = {}
    for number, row in table_rows(place, tally, COLUMNS, delimiter="\t"):
        product, question, candidate, answer = (tidy(row[column]) for column in COLUMNS)
        if not (product and question and candidate and answer):
            tally.reject(number, "ASIN, question, candidate or answer is missing", place.location)
            continue
        if not short(candidate):
            tally.skip()
            continue
        tally.good()
        rows.append((product, question, candidate, answer))
        snippets.setdefault(product, {}).setdefault(candidate, set()).add(question)
    distinct = sorted(set(rows))
    tally.unused(len(rows) - len(distinct))
    for product, question, candidate, answer in distinct:
        others = sorted(text for text, asked in snippets[product].items() if question not in asked)
        key = hashlib.sha256(f"{product}\0{question}\0{candidate}\0{answer}".encode()).hexdigest()[:16]
        yield Question(
            id=f"hetpqa-answer-{key}",
            product=product,
            category=source.category,
            domain=source.domain,
            text=question,
            descriptive=True,
            snippets=with_answer(key, candidate, others),
            answerable=True,
            answers=((answer, 1, 1),),
            split=source.split,
        )
