"""Formats `epqa` and `hetpqa_evidence`: product questions with candidates that people judged one by one.

ePQA: label 2 answers fully, 1 helps, 0 is irrelevant; every candidate of label 1 or 2 has an answer written from it.
HetPQA: label 1 answers, 0 does not; no answers. Candidates that only help are left out, since whether they answer is
just what is in doubt. AmazonQA's own answerability labels come from a classifier; these come from people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ecellm.config.schema import SourceFile
from ecellm.sources.documents import ranked, short, tidy, with_answer, without_answer
from ecellm.sources.lines import File, table_rows
from ecellm.sources.records import Question
from ecellm.sources.tally import Tally


@dataclass(slots=True)
class _Judged:
    """One question with its candidates; `answering` holds (candidate, written answer or "")."""

    product: str
    text: str
    lines: int = 0
    """Lines of it, those of candidates that are left out too."""
    answering: list[tuple[str, str]] = field(default_factory=list)
    irrelevant: list[str] = field(default_factory=list)


def read_epqa(place: File, source: SourceFile, tally: Tally) -> Iterator[Question]:
    """Up to two Questions for each question: `QID/with` has an answer, `QID/without` has none. Raises DataError."""
    questions: dict[str, _Judged] = {}
    for number, row in table_rows(place, tally, ("qid", "question", "ASIN", "candidate", "label", "answer")):
        candidate, answer = tidy(row["candidate"]), tidy(row["answer"])
        if row["label"] not in ("0", "1", "2"):
            tally.reject(number, f"label {row['label']!r} is none of 0, 1, 2", place.location)
        elif row["label"] == "2" and not answer:
            tally.reject(number, "label 2 without an answer", place.location)
        elif _add(questions, row, candidate, answer, row["label"] == "2", row["label"] == "0"):
            tally.good()
        else:
            tally.reject(number, "qid, question, ASIN or candidate is missing", place.location)
    yield from _questions("epqa", questions, source, tally)


def read_hetpqa_evidence(place: File, source: SourceFile, tally: Tally) -> Iterator[Question]:
    """As `read_epqa`, without answers. Raises DataError."""
    questions: dict[str, _Judged] = {}
    columns = ("qid", "ASIN", "question", "candidate", "label")
    for number, row in table_rows(place, tally, columns, delimiter="\t"):
        if row["label"] not in ("0", "1"):
            tally.reject(number, f"label {row['label']!r} is none of 0, 1", place.location)
        elif _add(questions, row, tidy(row["candidate"]), "", row["label"] == "1", row["label"] == "0"):
            tally.good()
        else:
            tally.reject(number, "qid, question, ASIN or candidate is missing", place.location)
    yield from _questions("hetpqa", questions, source, tally)


def _add(
    questions: dict[str, _Judged], row: dict[str, str], candidate: str, answer: str, answers: bool, irrelevant: bool
) -> bool:
    """Put a candidate that is short enough to its question; False where a field is empty."""
    key, product, text = row["qid"].strip(), row["ASIN"].strip(), tidy(row["question"])
    if not (key and product and text and candidate):
        return False
    judged = questions.setdefault(key, _Judged(product, text))
    judged.lines += 1
    if not short(candidate):
        return True
    if answers:
        judged.answering.append((candidate, answer))
    elif irrelevant:
        judged.irrelevant.append(candidate)
    return True


def _questions(name: str, questions: dict[str, _Judged], source: SourceFile, tally: Tally) -> Iterator[Question]:
    """The questions; lines whose candidate is shown in neither document were not used."""
    for key, judged in questions.items():
        answering = {candidate for candidate, _ in judged.answering}
        others = sorted(set(judged.irrelevant) - answering)
        shown: set[str] = set()
        used = 0
        if judged.answering:
            candidate, answer = ranked(key, judged.answering)[0]
            answers = ((answer, 1, 1),) if answer else ()
            snippets = with_answer(key, candidate, others)
            used, shown = judged.answering.count((candidate, answer)), shown | set(snippets)
            yield _question(f"{name}-{key}/with", judged, snippets, True, answers, source)
        if others:
            snippets = without_answer(key, others)
            shown |= set(snippets)
            yield _question(f"{name}-{key}/without", judged, snippets, False, (), source)
        used += sum(text in shown for text in judged.irrelevant if text not in answering)
        tally.unused(judged.lines - used)


def _question(
    id: str, judged: _Judged, snippets: tuple[str, ...], answerable: bool,
    answers: tuple[tuple[str, int, int], ...], source: SourceFile,
) -> Question:  # fmt: skip
    """An annotator's answer counts as one helpful vote of one: it passes the vote rule of AG (spec B.10)."""
    return Question(
        id=id, product=judged.product, category=source.category, domain=source.domain, text=judged.text,
        descriptive=True, snippets=snippets, answerable=answerable, answers=answers, split=source.split,
    )  # fmt: skip
