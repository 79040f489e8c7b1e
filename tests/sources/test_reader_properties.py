"""Whatever is in a raw file, a reader gives records and counts, or an error of the family: never a traceback.

Hypothesis writes the files: fields of the format with values of any kind, missing and further fields, any text, any
bytes, empty files, repeated ids, long fields.
"""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.read import FORMATS, Tally, read_source

FEW = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = st.text(max_size=40) | st.sampled_from(
    ["", " ", "nan", "\ud800", "a" * 3000, "<b>x</b> &amp;", "é\u202e\0", "None"]
)
IDS = st.sampled_from(["A", "B", "B000000001", 7, 10**50, True]) | TEXT
NUMBERS = st.integers() | st.floats() | st.sampled_from([1, 3.0, 5, 0, -1, 10**400, 1_500_000_000, 1_588_687_728_923])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PARAGRAPHS = st.lists(
    st.fixed_dictionaries({"text": TEXT, "source": st.sampled_from(["title", "brand"]) | TEXT}), max_size=3
)
EVIDENCES = st.lists(st.fixed_dictionaries({"value": TEXT, "pid": st.integers(-1, 3) | VALUES}), max_size=2)
HELPFUL = st.lists(NUMBERS, max_size=3)
SHAPES: dict[str, dict[str, Any]] = {
    "amazon_reviews": {"reviewerID": IDS, "asin": IDS, "overall": NUMBERS, "reviewText": TEXT,
                       "unixReviewTime": NUMBERS,
                       "user_id": IDS, "parent_asin": IDS, "rating": NUMBERS, "timestamp": NUMBERS},
    "amazon_metadata": {"asin": IDS, "title": TEXT, "category": st.lists(TEXT, max_size=3), "also_buy": st.lists(IDS),
                        "similar_item": TEXT, "related": st.dictionaries(TEXT, st.lists(IDS), max_size=2)},
    "mave": {"id": IDS, "paragraphs": PARAGRAPHS, "attributes": st.lists(
        st.fixed_dictionaries({"key": TEXT, "evidences": EVIDENCES}), max_size=2)},
    "amazonqa": {"asin": IDS, "category": TEXT, "questionText": TEXT, "questionType": TEXT, "qid": IDS,
                 "review_snippets": st.lists(TEXT, max_size=3), "is_answerable": st.sampled_from([0, 1]) | VALUES,
                 "answers": st.lists(st.fixed_dictionaries({"answerText": TEXT, "helpful": HELPFUL}),
                                     max_size=2)},
    "ae_jsonl": {"input": TEXT, "category": TEXT, "target_scores": st.dictionaries(
        TEXT, st.dictionaries(TEXT, st.just(1), max_size=2), max_size=2)},
    "amazon_qa_literal": {"asin": IDS, "question": TEXT, "answer": TEXT},
}  # fmt: skip
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "esci_csv": (",", ("example_id", "query", "product_id", "esci_label", "product_title", "split")),
    "esci_exact": (",", ("query", "product_id", "esci_label", "product_title")),
    "epqa": (",", ("qid", "question", "ASIN", "candidate", "label", "answer")),
    "hetpqa_answers": ("\t", ("ASIN", "question", "candidate", "answer")),
    "hetpqa_evidence": ("\t", ("qid", "ASIN", "question", "candidate", "label")),
    "subjqa": (",", ("item_id", "question", "review_id", "review", "human_ans_spans", "human_ans_indices")),
}
CELLS = st.text(max_size=20) | st.sampled_from(
    ["1", "2", "0", "E", "S", "us", "(0, 3)", "ANSWERNOTFOUND", "a\nb", '"', "x" * 3000, "foo", "\udcff no UTF-8"]
)
PLACES = st.sampled_from(["(0, 3)", "(None, 3)", "(-7, -4)", "(0, -1)", "(True, 3)", "(0, 10**30)", "-" * 20_000 + "1",
                          "(" * 300, "7", ""])  # fmt: skip
DEEP = "[" * 1000 + "]" * 1000


def read(folder: Path, format: str, path: str, data: bytes) -> None:
    """Read a file; check that all was counted and that all text can be written."""
    (folder / path).write_bytes(data)
    tally = Tally(path)
    source = SourceFile.model_validate({"format": format, "path": path})
    try:
        records = list(read_source(source, str(folder), tally))
    except DataError:
        return
    assert tally.used + tally.bad + tally.skipped == tally.lines
    assert min(tally.used, tally.bad, tally.skipped) >= 0
    assert bool(tally.bad) == bool(tally.faults)
    for value in _values(records):
        if isinstance(value, str):
            value.encode()
        assert not isinstance(value, float) or math.isfinite(value)


def _values(value: Any) -> Any:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _values(part)
    else:
        yield value


def _line(record: Any) -> str:
    return record if isinstance(record, str) else json.dumps(record)


@pytest.mark.parametrize("format", SHAPES)
def test_lines_of_any_kind(tmp_path: Path, format: str) -> None:
    fields = SHAPES[format]
    good = st.fixed_dictionaries(fields)
    odd = st.dictionaries(st.sampled_from([*fields, "more"]), VALUES)
    mixed = st.builds(lambda a, b: {**a, **b}, good, odd)
    deep = st.builds(lambda a, name: json.dumps({**a, name: "<deep>"}).replace('"<deep>"', DEEP),
                     good, st.sampled_from([*fields, "category"]))  # fmt: skip

    @FEW
    @given(st.lists(good | odd | mixed | deep | TEXT.filter(str.isprintable), max_size=6))
    def check(lines: list[Any]) -> None:
        data = "\n".join(map(_line, lines)).encode("utf-8", "replace")
        read(tmp_path, format, "a.jsonl", data)
        literal = "\n".join(map(repr, lines)).encode("utf-8", "replace")
        if format in ("amazon_metadata", "amazon_qa_literal"):
            read(tmp_path, format, "a.jsonl", literal)

    check()


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_bytes_of_any_kind(tmp_path: Path, format: str) -> None:
    name = {"amazon_google": "Amazon.csv", "esci_vespa": "x_judgements.csv"}.get(format, "a")
    (tmp_path / "x_products.jsonl").write_text("{}\n")

    @settings(FEW, max_examples=15)
    @given(st.binary(max_size=80) | st.just(b"") | st.just(b"\n\n") | st.just(b"\xef\xbb\xbf{}\n"))
    def check(data: bytes) -> None:
        for ending in ("", ".gz") if format != "esci_vespa" else ("",):
            read(tmp_path, format, name + ending, data)

    check()


@pytest.mark.parametrize("format", TABLES)
def test_tables_of_any_kind(tmp_path: Path, format: str) -> None:
    delimiter, columns = TABLES[format]

    @FEW
    @given(st.lists(st.lists(CELLS, min_size=len(columns), max_size=len(columns)) | st.lists(CELLS), max_size=5))
    def check(rows: list[list[str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(rows)
        read(tmp_path, format, "a.csv", text.getvalue().encode("utf-8", "surrogateescape"))

    check()


def test_spans_of_any_kind(tmp_path: Path) -> None:
    columns = TABLES["subjqa"][1]

    @FEW
    @given(st.lists(st.tuples(st.sampled_from(["foo", "foo bar foo", "é"]), PLACES), max_size=4))
    def check(rows: list[tuple[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(("B1", "why?", "r1", "foo bar foo baz", *row) for row in rows)
        read(tmp_path, "subjqa", "a.csv", text.getvalue().encode())

    check()


def test_products_beside_judgements_of_any_kind(tmp_path: Path) -> None:
    fields = st.fixed_dictionaries({"id": st.sampled_from(["p", "q"]), "title": TEXT}) | VALUES
    products = st.lists(st.fixed_dictionaries({"fields": fields}) | TEXT.filter(str.isprintable), max_size=5)
    row = st.tuples(st.sampled_from(["lamp", ""]), st.sampled_from(["p", "q", "r"]), st.sampled_from(["E", "X"]))

    @FEW
    @given(products, st.lists(row, max_size=4))
    def check(lines: list[Any], rows: list[tuple[str, ...]]) -> None:
        (tmp_path / "x_products.jsonl").write_text("\n".join(map(_line, lines)), encoding="utf-8", errors="replace")
        table = "query,product_id,esci_label\n" + "".join(",".join(row) + "\n" for row in rows)
        read(tmp_path, "esci_vespa", "x_judgements.csv", table.encode())

    check()


def test_ratings_of_any_kind(tmp_path: Path) -> None:
    @FEW
    @given(st.lists(st.lists(TEXT | NUMBERS.map(str), min_size=3, max_size=5), max_size=5))
    def check(rows: list[list[str]]) -> None:
        data = "\n".join(",".join(row) for row in rows).encode("utf-8", "replace")
        read(tmp_path, "amazon_ratings", "a.csv", data)

    check()


def test_judgements_of_any_kind(tmp_path: Path) -> None:
    columns = {"example_id": st.integers(0, 2**40), "query": st.none() | st.text(max_size=10),
               "product_id": st.text(max_size=3),
               "product_locale": st.sampled_from(["us", "es", None]),
               "esci_label": st.sampled_from(["E", "S", "", None]),
               "small_version": st.sampled_from([0, 1, None])}  # fmt: skip

    @settings(FEW, max_examples=15)
    @given(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=5))
    def check(rows: list[dict[str, Any]]) -> None:
        sink = io.BytesIO()
        kinds = [("example_id", pa.int64()), ("small_version", pa.int64())]
        others = [(name, pa.string()) for name in columns if name not in dict(kinds)]
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds + others)), sink)
        read(tmp_path, "esci", "examples.parquet", sink.getvalue())

    check()
