"""Formats epqa, hetpqa_evidence, hetpqa_answers, subjqa and amazon_qa_literal: product questions."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import pytest

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.documents import SNIPPETS, with_answer, without_answer
from ecellm.sources.lines import chunks_of
from ecellm.sources.read import read_source
from ecellm.sources.records import Question
from ecellm.sources.subjective_questions import WINDOW, window
from ecellm.sources.tally import Tally

EPQA = ("qid", "question", "ASIN", "candidate", "source", "qa_pair_id", "title", "label", "answer")
EVIDENCE = ("qid", "ASIN", "qa_pair_id", "question", "candidate", "label", "source", "confidence")
ANSWERS = ("ASIN", "question", "candidate", "answer", "source")
SUBJ = ("item_id", "question", "review_id", "review", "human_ans_spans", "human_ans_indices")


def read(folder: Path, format: str, header: tuple[str, ...], *rows: tuple[object, ...]) -> tuple[list[Question], Tally]:
    with open(folder / "questions", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if format.startswith("hetpqa") else ",").writerows([header, *rows])
    return through(SourceFile.model_validate({"format": format, "path": "questions", "category": "Toys"}), str(folder))


def through(source: SourceFile, root: str) -> tuple[list[Question], Tally]:
    tally = Tally(source.path)
    return [record for record in read_source(source, root, tally) if isinstance(record, Question)], tally


def candidate(text: str, label: object, answer: str = "") -> tuple[object, ...]:
    return (7, "does it float?", "B1", text, "review", 1, "Duck", label, answer)


def test_a_document_with_and_one_without_answer_have_as_many_snippets() -> None:
    others = [f"aside {number}" for number in range(9)]
    assert len(with_answer("q", "it floats", others)) == len(without_answer("q", others)) == SNIPPETS
    assert len(with_answer("q", "it floats", others[:2])) == len(without_answer("q", others[:2])) == 2
    assert with_answer("q", "it floats", []) == ("it floats",)


def test_the_answer_stands_anywhere_in_its_document() -> None:
    others = [f"aside {number}" for number in range(9)]
    places = Counter(with_answer(f"q{number}", "it floats", others).index("it floats") for number in range(400))
    assert set(places) == set(range(SNIPPETS))
    assert min(places.values()) > 60


def test_epqa_gives_a_question_with_an_answer_and_one_without(tmp_path: Path) -> None:
    rows = [candidate("it  floats", 2, "Yes. It\nfloats."), candidate("it may", 1, "Perhaps.")]
    rows += [candidate(f"aside {number}", 0) for number in range(6)]
    (yes, no), tally = read(tmp_path, "epqa", EPQA, *rows)
    assert (yes.answerable, no.answerable) == (True, False)
    assert (
        (yes.text, yes.product, yes.category) == (no.text, no.product, no.category) == ("does it float?", "B1", "Toys")
    )
    assert yes.answers == (("Yes. It floats.", 1, 1),)
    assert no.answers == ()
    assert "it floats" in yes.snippets
    assert "it floats" not in no.snippets
    assert "it may" not in yes.snippets + no.snippets
    assert yes.id != no.id
    assert (tally.lines, tally.used, tally.skipped, tally.bad) == (8, 7, 1, 0), "who only helps is left out"


def test_epqa_without_a_full_answer_is_unanswerable(tmp_path: Path) -> None:
    (question,), _ = read(tmp_path, "epqa", EPQA, candidate("it may", 1, "Perhaps."), candidate("aside", 0))
    assert question.answerable is False
    assert question.snippets == ("aside",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (candidate("x", 3), "none of 0, 1, 2"),
        (candidate("x", 2), "label 2 without an answer"),
        (candidate(" ", 0), "candidate is missing"),
    ],
)
def test_epqa_counts_a_broken_row(tmp_path: Path, row: tuple[object, ...], reason: str) -> None:
    _, tally = read(tmp_path, "epqa", EPQA, candidate("aside", 0), row)
    assert tally.bad == 1
    assert "questions, line 3: " in tally.faults[0]
    assert reason in tally.faults[0]


def test_a_long_snippet_is_not_shown(tmp_path: Path) -> None:
    long = "word " * 41
    rows = [candidate(long, 2, "Yes."), candidate("aside", 0), candidate(long + "more", 0)]
    (question,), tally = read(tmp_path, "epqa", EPQA, *rows)
    assert (question.answerable, question.snippets) == (False, ("aside",))
    assert (tally.used, tally.skipped, tally.bad) == (1, 2, 0)


def test_hetpqa_evidence_has_no_answers(tmp_path: Path) -> None:
    rows = [
        (5, "B2", 1, "wash?", text, label, "review", "high") for text, label in [("by hand", 1), ("red", 0), ("x", 0)]
    ]
    (yes, no), _ = read(tmp_path, "hetpqa_evidence", EVIDENCE, *rows)
    assert "by hand" in yes.snippets
    assert len(yes.snippets) == len(no.snippets) == 2
    assert yes.answers == no.answers == ()
    assert (yes.answerable, no.answerable) == (True, False)


def test_hetpqa_answers_stand_among_snippets_of_the_same_product(tmp_path: Path) -> None:
    rows = [("B3", f"question {number}", f"snippet {number}", f"answer {number}", "CQA") for number in range(6)]
    rows.append(("B9", "alone?", "alone", "it is alone", "CQA"))
    long = ("B3", "question 9", "word " * 41, "answer", "CQA")
    found, tally = read(tmp_path, "hetpqa_answers", ANSWERS, *rows, rows[0], long)
    assert len(found) == 7, "the repeated line is one question"
    assert (tally.lines, tally.used, tally.skipped) == (9, 7, 2)
    for question in found:
        number = question.text.removeprefix("question ")
        assert question.answerable
        assert question.descriptive
        assert (f"snippet {number}" if number != "alone?" else "alone") in question.snippets
        assert len(question.snippets) == (1 if number == "alone?" else SNIPPETS)


REVIEW = "Nice box. The sound is very good for me. " + "More words here. " * 60


def review(span: str, indices: str, text: str = REVIEW, question: str = "How is it?") -> tuple[object, ...]:
    return ("B4", question, "r1", text + " ANSWERNOTFOUND", span, indices)


def test_subjqa_s_own_mark_never_reaches_the_document(tmp_path: Path) -> None:
    (question,), _ = read(tmp_path, "subjqa", SUBJ, review("ANSWERNOTFOUND", "(0, 0)"))
    assert question.answerable is False
    assert question.answers == ()
    assert "ANSWERNOTFOUND" not in question.snippets[0]
    assert len(question.snippets[0].split()) == WINDOW


def test_subjqa_s_answer_is_in_its_window_and_in_the_review_s_own_spelling(tmp_path: Path) -> None:
    start = REVIEW.index("The sound")
    span = "The sound is very good"
    (question,), tally = read(
        tmp_path, "subjqa", SUBJ, review("The sound is very good .", f"({start}, {start + len(span)})")
    )
    assert question.answerable is True
    assert question.answers == ((span, 1, 1),)
    assert span in question.snippets[0]
    assert question.descriptive is False
    assert tally.bad == 0


def test_subjqa_takes_the_majority_and_leaves_a_tie_out(tmp_path: Path) -> None:
    yes, no = review("Nice box", "(0, 8)"), review("ANSWERNOTFOUND", "(0, 0)")
    found, tally = read(tmp_path, "subjqa", SUBJ, yes, no)
    assert (found, tally.used, tally.skipped) == ([], 0, 2)
    assert read(tmp_path, "subjqa", SUBJ, yes, no, yes)[0][0].answerable is True
    assert read(tmp_path, "subjqa", SUBJ, no, yes, no)[0][0].answerable is False


@pytest.mark.parametrize(
    "indices",
    ["(0, 3)", "(900", "__import__('os').getcwd()", "7", "(None, 8)", "(False, 8)", f"({-len(REVIEW)}, 8)",
     "-" * 20_000 + "1"],
)  # fmt: skip
def test_subjqa_counts_a_span_that_is_not_there(tmp_path: Path, indices: str) -> None:
    found, tally = read(tmp_path, "subjqa", SUBJ, review("Nice box", indices))
    assert found == []
    assert tally.bad == 1
    assert "line 2" in tally.faults[0]


@pytest.mark.parametrize("place", [(0, 3), (400, 404), (795, 799)])
def test_a_window_holds_its_span_wherever_that_is(place: tuple[int, int]) -> None:
    text = " ".join(f"{number:03d}" for number in range(200))
    for key in "abcdef":
        shown = window(key, text, place)
        assert text[slice(*place)].strip() in shown
        assert len(shown.split()) == WINDOW
    assert len({window(key, text, None) for key in "abcdef"}) > 3


def test_python_literals_are_read_and_never_run(tmp_path: Path) -> None:
    lines = [
        "{'questionType': 'open-ended', 'asin': 'B5', 'question': 'Is it \"red\"?', 'answer': 'It\\'s red.'}",
        "{'asin': 'B5', 'question': 'q', 'answer': open('ran', 'w').write('x')}",
        "{'asin': 'B5', 'question': 'q'}",
    ]
    with gzip.open(tmp_path / "qa.json.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([*lines, lines[0]]) + "\n")
    (question,), tally = through(SourceFile(format="amazon_qa_literal", path="qa.json.gz"), str(tmp_path))
    assert (question.text, question.answers) == ('Is it "red"?', (("It's red.", 0, 0),))
    assert (question.answerable, question.snippets, question.descriptive) == (None, (), True)
    assert (tally.lines, tally.used, tally.skipped, tally.bad) == (4, 1, 1, 2), "said twice is used once"
    assert not (tmp_path / "ran").exists()
    assert not Path("ran").exists()


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"{'asin': 'B5', 'question': 'q', 'answer': 'a'}\n" * 500)
    (tmp_path / "qa.json.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match="cannot be read on"):
        through(SourceFile(format="amazon_qa_literal", path="qa.json.gz"), str(tmp_path))


def test_a_disk_that_fails_is_refused_at_its_line() -> None:
    with pytest.raises(DataError, match=r"/proc/self/mem, line 1: cannot be read on") as caught:
        list(chunks_of("/proc/self/mem"))  # no page is mapped at its start, so it opens and cannot be read
    assert "Input/output error" in str(caught.value)


@pytest.mark.parametrize(
    ("format", "name", "lines", "bad", "yes", "no"),
    [
        ("epqa", "product_qa/ePQA_dev.csv", 6720, 1, 531, 672),
        ("hetpqa_evidence", "product_qa/hetPQA_evidence_ranking_dev.tsv", 2731, 0, 351, 486),
        ("hetpqa_answers", "product_qa/hetPQA_answer_generation_train.tsv", 3693, 0, 3472, 0),
        ("hetpqa_answers", "product_qa/hetPQA_answer_generation_dev.tsv", 398, 0, 375, 0),
        ("subjqa", "product_qa/SubjQA_electronics_train.csv", 2345, 42, 345, 617),
        ("subjqa", "product_qa/SubjQA_electronics_dev.csv", 261, 4, 94, 156),
        ("amazon_qa_literal", "amazonqa/qa_Appliances.json.gz", 9011, 0, 0, 0),
    ],
)
def test_the_real_files(shared: Path, format: str, name: str, lines: int, bad: int, yes: int, no: int) -> None:
    found, tally = through(SourceFile.model_validate({"format": format, "path": name}), str(shared / "data"))
    assert (tally.lines, tally.bad) == (lines, bad)
    assert tally.used + tally.skipped == lines - bad
    answerable = Counter(question.answerable for question in found)
    assert (answerable[True], answerable[False]) == (yes, no)
    assert len({question.id for question in found}) == len(found)
    tally.check(0.05)
