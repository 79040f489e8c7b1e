"""The readers of the six raw formats: what they give, and what they say of broken files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.lines import File, text_of
from ecellm.sources.read import FORMAT_TASKS, FORMATS, Tally, parts_of, pieces_of, read_piece, read_source
from ecellm.sources.records import CatalogueItem, Judgement, ListedProduct, Match


def _read(root: Path, format: str, path: str, tally: Tally | None = None, **more: str) -> list:
    source = SourceFile.model_validate({"format": format, "path": path, **more})
    return list(read_source(source, str(root), tally or Tally(path)))


def _lines(path: Path, *values: object, zipped: bool = False) -> None:
    text = "".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values).encode()
    path.write_bytes(gzip.compress(text) if zipped else text)


REVIEW = {"reviewerID": "U1", "asin": "P1", "overall": 5.0, "reviewText": "Fine", "unixReviewTime": 7,
          "reviewerName": "Jane Secret"}  # fmt: skip


def test_every_format_has_a_reader_and_tasks() -> None:
    assert FORMATS.keys() == FORMAT_TASKS.keys()


def test_reviews_leave_the_name_behind(tmp_path: Path) -> None:
    _lines(tmp_path / "Toys_5.json.gz", REVIEW, zipped=True)
    (review,) = _read(tmp_path, "amazon_reviews", "Toys_5.json.gz")
    assert (review.user, review.product, review.group, review.rating, review.time) == ("U1", "P1", "Toys", 5.0, 7)
    assert "Secret" not in repr(review)


def test_bad_lines_are_counted_with_their_numbers(tmp_path: Path) -> None:
    _lines(tmp_path / "a.json", REVIEW, "{broken", {**REVIEW, "overall": 9}, [1])
    tally = Tally("a.json")
    assert len(_read(tmp_path, "amazon_reviews", "a.json", tally)) == 1
    assert (tally.lines, tally.used, tally.bad) == (4, 1, 3)
    assert "line 2" in tally.faults[0]
    with pytest.raises(DataError, match="line 2"):
        tally.check(0.5)
    tally.check(0.75)


def test_ratings(tmp_path: Path) -> None:
    (tmp_path / "Toys.csv").write_text("P1,U1,4.0,99\nP1,U1,4.0\n")
    tally = Tally("Toys.csv")
    (review,) = _read(tmp_path, "amazon_ratings", "Toys.csv", tally)
    assert (review.product, review.user, review.time, review.text, tally.bad) == ("P1", "U1", 99, "", 1)


def test_metadata_of_both_years_and_no_code_is_run(tmp_path: Path) -> None:
    new = {"asin": "A" * 10, "title": "T", "category": ["X", "Y"], "also_buy": ["B"],
           "similar_item": '<a data-asin="B012345678"></a> x asin=\'B0ABCDEFGH\''}  # fmt: skip
    old = "{'asin': 'C', 'categories': [['K', 'L']], 'related': {'also_viewed': ['D']}}"
    evil = "__import__('os').system('true')"
    _lines(tmp_path / "meta_Toys.json", new, old, evil)
    tally = Tally("meta_Toys.json")
    first, second = _read(tmp_path, "amazon_metadata", "meta_Toys.json", tally)
    assert first.similar == ("B012345678", "B0ABCDEFGH")
    assert (first.category, first.also_buy, first.group) == (("X", "Y"), ("B",), "Toys")
    assert (second.category, second.also_view, second.title, tally.bad) == (("K", "L"), ("D",), "", 1)


def test_amazon_google_reads_latin_1(tmp_path: Path) -> None:
    (tmp_path / "Amazon.csv").write_bytes(
        '"id","title","description","manufacturer","price"\n"a","caf\xe9",,,5\n'.encode("latin-1")
    )
    (tmp_path / "GoogleProducts.csv").write_text(
        '"id","name","description","manufacturer","price"\n"g","cafe","x","m",6\n'
    )
    (tmp_path / "Amzon_GoogleProducts_perfectMapping.csv").write_text('"idAmazon","idGoogleBase"\n"a","g"\n')
    left, right, match = _read(tmp_path.parent, "amazon_google", tmp_path.name)
    assert isinstance(left, CatalogueItem)
    assert (left.catalogue, left.title, left.description) == ("amazon", "café", None)
    assert (right.catalogue, right.title, match) == ("google", "cafe", Match(amazon="a", google="g", line=2))
    (tmp_path / "Amazon.csv").unlink()
    with pytest.raises(DataError, match=r"files are missing"):
        _read(tmp_path.parent, "amazon_google", tmp_path.name)


def test_mave_folder_and_its_eval_split(tmp_path: Path) -> None:
    folder = tmp_path / "splits" / "PRODUCT" / "eval" / "00_All"
    folder.mkdir(parents=True)
    record = {"id": "1", "category": "C", "paragraphs": [{"text": "red mug", "source": "title"}],
              "attributes": [{"key": "Color", "evidences": [{"value": "red", "pid": 0, "begin": 0, "end": 3}]},
                             {"key": "Size", "evidences": []}]}  # fmt: skip
    wrong = {**record, "attributes": [{"key": "Color", "evidences": [{"value": "red", "pid": 4}]}]}
    _lines(folder / "mave_positives.jsonl", record, wrong)
    tally = Tally("splits")
    color, size = _read(tmp_path, "mave", "splits", tally)
    assert (color.split, color.attribute, color.evidences) == ("val", "Color", (("red", "title"),))
    assert (size.attribute, size.evidences, tally.bad) == ("Size", (), 1)


def _esci(folder: Path) -> None:
    examples = {"example_id": [1, 2, 3], "query": ["mug", "mug", "mug"], "product_id": ["p", "q", "r"],
                "product_locale": ["us", "us", "us"], "esci_label": ["E", "Substitute", "Z"],
                "small_version": [1, 0, 1], "split": ["train", "test", "train"]}  # fmt: skip
    products = {"product_id": ["p", "q"], "product_locale": ["us", "us"], "product_title": ["A", "B"]}
    pq.write_table(pa.table(examples), folder / "shopping_queries_dataset_examples.parquet")
    pq.write_table(pa.table(products), folder / "shopping_queries_dataset_products.parquet")


def test_esci(tmp_path: Path) -> None:
    _esci(tmp_path)
    tally = Tally("esci")
    found = _read(tmp_path.parent, "esci", tmp_path.name, tally)
    one, two = (record for record in found if isinstance(record, Judgement))
    titles = {record.id: record.title for record in found if isinstance(record, ListedProduct)}
    assert titles == {"p": "A", "q": "B"}
    assert (one.title, one.product, one.label, one.small, one.split) == ("", "p", "E", True, "train")
    assert (two.label, two.small, tally.bad, tally.lines) == ("S", False, 1, 5)


def test_cut_off_files_are_data_errors(tmp_path: Path) -> None:
    _esci(tmp_path)
    whole = tmp_path / "shopping_queries_dataset_examples.parquet"
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match="Parquet"):
        _read(tmp_path.parent, "esci", tmp_path.name)
    _lines(tmp_path / "a.json.gz", *[{**REVIEW, "asin": str(i)} for i in range(500)], zipped=True)
    (tmp_path / "a.json.gz").write_bytes((tmp_path / "a.json.gz").read_bytes()[:-30])
    with pytest.raises(DataError, match="line"):
        _read(tmp_path, "amazon_reviews", "a.json.gz")


@pytest.mark.parametrize("ending", ["pq", "data"])
def test_esci_is_parquet_whatever_its_name(tmp_path: Path, ending: str) -> None:
    _esci(tmp_path)
    for kind in ("examples", "products"):
        (tmp_path / f"shopping_queries_dataset_{kind}.parquet").rename(tmp_path / f"{kind}.{ending}")
    source, tally = SourceFile(format="esci", path=f"examples.{ending}"), Tally("x")
    parts = parts_of(source, str(tmp_path))
    assert len(parts) == (2 if ending == "pq" else 1)
    found = [record for part in parts for place in pieces_of(source, part, size=20)
             for record in read_piece(source, part, place, tally)]  # fmt: skip
    assert [record.product for record in found if isinstance(record, Judgement)] == ["p", "q"]
    assert len(_read(tmp_path, "esci", f"products.{ending}")) == 2


def test_a_text_that_is_no_utf_8_in_parquet_is_a_data_error(tmp_path: Path) -> None:
    text = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb"))
    pq.write_table(pa.table({"reviewerID": text}), tmp_path / "Toys.parquet")
    with pytest.raises(DataError, match=r"Toys\.parquet: not a whole Parquet file") as caught:
        _read(tmp_path, "amazon_reviews", "Toys.parquet")
    assert "invalid start byte" in caught.value.found


DEEP = "[" * 1000 + "]" * 1000


@pytest.mark.parametrize(
    ("format", "line", "records"),
    [
        ("amazon_reviews", {**REVIEW, "reviewText": "<deep>"}, 1),
        ("amazon_reviews", {**REVIEW, "overall": "<deep>"}, 0),
        ("amazon_metadata", {"asin": "A", "title": "<deep>", "category": ["<deep>"], "also_buy": ["<deep>"]}, 1),
        ("amazonqa", {"questionText": "Why?", "category": "<deep>", "review_snippets": ["<deep>"]}, 1),
        ("mave", {"id": 1, "category": "<deep>", "paragraphs": [{"text": "red", "source": "title"}],
                  "attributes": [{"key": "Color", "evidences": []}]}, 1),
        ("mave", {"id": 1, "paragraphs": [{"text": "red", "source": "title"}],
                  "attributes": [{"key": "<deep>", "evidences": []}]}, 0),
        ("ae_jsonl", {"input": "red", "category": "<deep>", "target_scores": {"Color": {"red": 1}}}, 0),
    ],
)  # fmt: skip
def test_lists_in_lists_are_read_or_counted(tmp_path: Path, format: str, line: dict, records: int) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(line).replace('"<deep>"', DEEP))
    tally = Tally("a.jsonl")
    assert len(_read(tmp_path, format, "a.jsonl", tally)) == records
    assert (tally.used, tally.bad) == ((1, 0) if records else (0, 1))


def test_lists_of_texts_are_joined_however_nested() -> None:
    assert text_of(["a", ["b", ["", "nan"], [], [["c"], 5, None]], "d"]) == "a b c d"
    assert text_of(json.loads("[" * 300 + '"x", "y"' + "]" * 300)) == "x y"
    assert text_of([[], ["nan"]]) == text_of({"a": "b"}) == ""


def test_a_row_that_is_no_utf_8_is_counted_at_its_line(tmp_path: Path) -> None:
    head = "query,product_id,esci_label,product_title\n"
    rows = [f"q,p{i},E,title {i}\n".encode() for i in range(2000)]
    rows[1500] = b"q,p,E,caf\xe9\n"
    (tmp_path / "a.csv").write_bytes(head.encode() + b"".join(rows))
    tally = Tally("a.csv")
    assert len(_read(tmp_path, "esci_csv", "a.csv", tally)) == 1999
    assert (tally.lines, tally.used, tally.bad) == (2000, 1999, 1)
    assert tally.faults == ["a.csv, line 1502: not utf-8"]
    (tmp_path / "a.csv").write_bytes(b"caf\xe9," + head.encode())
    with pytest.raises(DataError, match=r"a\.csv, line 1: cannot be read on") as caught:
        _read(tmp_path, "esci_csv", "a.csv")
    assert "the header is not utf-8" in caught.value.found


def test_a_cut_off_catalogue_is_a_data_error(tmp_path: Path) -> None:
    whole = gzip.compress(b'"id","title"\n' + b"".join(b"%d,mug\n" % i for i in range(5000)))
    (tmp_path / "Amazon.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="cannot be read on"):
        _read(tmp_path, "amazon_google", "Amazon.csv.gz")


def test_missing_file_and_other_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        _read(tmp_path, "amazonqa", "nothing.jsonl")
    (tmp_path / "a.jsonl").write_text('{"questionText": "é"}\n', encoding="utf-16")
    tally = Tally("a.jsonl")
    assert _read(tmp_path, "amazonqa", "a.jsonl", tally) == []
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        tally.check(0.05)


def test_the_layout_of_2023(tmp_path: Path) -> None:
    _lines(tmp_path / "Toys.jsonl.gz", {"user_id": "U" * 28, "parent_asin": "P" * 10, "asin": "CHILD", "rating": 4.0,
           "title": "ok", "text": "Good", "timestamp": 1_588_687_728_923}, zipped=True)  # fmt: skip
    (review,) = _read(tmp_path, "amazon_reviews", "Toys.jsonl.gz")
    assert (review.user, review.product, review.rating, review.text, review.time, review.group) == (
        "U" * 28, "P" * 10, 4.0, "Good", 1_588_687_728, "Toys",
    )  # fmt: skip
    (tmp_path / "Toys.csv").write_text(
        f"user_id,parent_asin,rating,timestamp\n{'U' * 28},{'P' * 10},5.0,1588687728923\n"
    )
    tally = Tally("Toys.csv")
    (rating,) = _read(tmp_path, "amazon_ratings", "Toys.csv", tally)
    assert (rating.user, rating.product, rating.time, tally.bad) == ("U" * 28, "P" * 10, 1_588_687_728, 0)
    item = {"main_category": "Toys", "title": "T", "store": "Acme", "categories": ["Toys", "Games"], "parent_asin": "P",
            "bought_together": None, "price": None}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([item]), tmp_path / "meta_Toys.parquet")
    (product,) = _read(tmp_path, "amazon_metadata", "meta_Toys.parquet")
    assert (product.id, product.brand, product.category, product.also_buy) == ("P", "Acme", ("Toys", "Games"), ())


@pytest.mark.parametrize("size", [100, 1 << 20])
@pytest.mark.parametrize(
    "header", ["user_id,parent_asin,rating,timestamp", "parent_asin, user_id, timestamp, history, rating"]
)
def test_the_header_of_ratings_names_their_columns_in_every_piece(tmp_path: Path, header: str, size: int) -> None:
    names = [name.strip() for name in header.split(",")]
    rows = [{"user_id": f"U{i}", "parent_asin": f"B{i:09d}", "rating": "5.0", "timestamp": "7", "history": "x"}
            for i in range(30)]  # fmt: skip
    lines = [header, *(",".join(row[name] for name in names) for row in rows), "U1,B000000001,5.0"]
    (tmp_path / "Toys.csv").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    source, tally = SourceFile(format="amazon_ratings", path="Toys.csv"), Tally("Toys.csv")
    (part,) = parts_of(source, str(tmp_path))
    places = list(pieces_of(source, part, size=size))
    assert (len(places) > 5) == (size == 100)
    found = [record for place in places for record in read_piece(source, part, place, tally)]
    assert [(one.user, one.product, one.rating, one.time, one.line) for one in found] == [
        (row["user_id"], row["parent_asin"], 5.0, 7, number) for number, row in enumerate(rows, 2)
    ]
    assert (tally.lines, tally.used, tally.bad) == (31, 30, 1)
    assert tally.faults == ["Toys.csv, line 32: not user_id,parent_asin,rating,timestamp"]


def test_pieces_give_what_the_whole_gives(tmp_path: Path) -> None:
    lines = [{**REVIEW, "asin": f"P{i}", "reviewText": "ü" * (i % 7)} for i in range(200)]
    _lines(tmp_path / "Toys.json", *lines[:100], "", "{broken", *lines[100:])
    source = SourceFile(format="amazon_reviews", path="Toys.json")
    (part,) = parts_of(source, str(tmp_path))
    whole, cut = Tally("w"), Tally("c")
    places = list(pieces_of(source, part, size=500))
    assert len(places) > 20
    found = [record for place in places for record in read_piece(source, part, place, cut)]
    assert found == list(read_piece(source, part, File(part.location), whole))
    assert [record.line for record in found][99:101] == [100, 103]
    assert (cut.lines, cut.used, cut.bad, cut.faults) == (whole.lines, whole.used, whole.bad, whole.faults)


def test_a_line_without_end_is_counted_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecellm.sources.lines.LONGEST_LINE", 1000)
    _lines(tmp_path / "a.json", REVIEW, {**REVIEW, "reviewText": "x" * 5000}, REVIEW)
    source, tally = SourceFile(format="amazon_reviews", path="a.json"), Tally("a.json")
    (part,) = parts_of(source, str(tmp_path))
    places = list(pieces_of(source, part, size=300))
    assert max(len(place.data) for place in places) < 1500
    assert len([record for place in places for record in read_piece(source, part, place, tally)]) == 2
    assert (tally.lines, tally.bad) == (3, 1)
    assert "line 2" in tally.faults[0]


def test_amazonqa(tmp_path: Path) -> None:
    line = {"asin": "P", "category": "Electronics", "questionText": "Does it?", "questionType": "descriptive",
            "review_snippets": ["s", None], "answers": [{"answerText": "Yes.", "helpful": [2, 3]}], "is_answerable": 1,
            "qid": 5}  # fmt: skip
    phone = {**line, "category": "Cell_Phones_and_Accessories", "is_answerable": None}
    _lines(tmp_path / "val-qar.jsonl", line, phone, {**line, "answers": [{"answerText": "x", "helpful": [1]}]})
    tally = Tally("val-qar.jsonl")
    one, two = _read(tmp_path, "amazonqa", "val-qar.jsonl", tally)
    assert (one.id, one.split, one.snippets, one.answers, one.answerable) == (
        "5",
        "val",
        ("s",),
        (("Yes.", 2, 3),),
        True,
    )
    assert (two.domain, two.answerable, tally.bad) == ("OOD", None, 1)
    assert len(_read(tmp_path, "amazonqa", "val-qar.jsonl", category="Electronics")) == 1
