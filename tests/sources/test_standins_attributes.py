"""Format ae_jsonl: AE-110k and OA-Mine titles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.attribute_titles import read_attribute_titles
from ecellm.sources.lines import File
from ecellm.sources.read import read_source
from ecellm.sources.records import Attributed
from ecellm.sources.tally import Tally

SOURCE = SourceFile(format="ae_jsonl", path="titles.jsonl")


def read(folder: Path, *lines: object) -> tuple[list[Attributed], Tally]:
    path = folder / "titles.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    tally = Tally(str(path))
    return list(read_attribute_titles(File(str(path)), SOURCE, tally)), tally


def test_one_record_for_each_title_and_attribute(tmp_path: Path) -> None:
    line = {"input": "Acme blue lure 40mm", "category": "Lure",
            "target_scores": {"Brand": {"Acme": 1}, "Size": {"40mm": 1, "blue": 1}}}  # fmt: skip
    (brand, size), tally = read(tmp_path, line)
    assert brand.attribute == "Brand"
    assert brand.evidences == (("Acme", "title"),)
    assert brand.paragraphs == (("Acme blue lure 40mm", "title"),)
    assert size.evidences == (("40mm", "title"), ("blue", "title"))
    assert (size.category, size.split, size.id) == ("Lure", "", brand.id)
    assert (tally.lines, tally.used, tally.bad) == (1, 1, 0)


def test_not_applicable_is_a_negative_and_means_nothing_beside_a_value(tmp_path: Path) -> None:
    line = {"input": "red hat", "category": "Hat", "target_scores": {"Size": {"n/a": 1}, "Color": {"n/a": 1, "red": 1}}}
    (size, color), _ = read(tmp_path, line)
    assert size.evidences == ()
    assert color.evidences == (("red", "title"),)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "no JSON"),
        ([1], "no JSON object"),
        ({"input": "", "target_scores": {"A": {"b": 1}}}, "no `input`"),
        ({"input": "hat", "target_scores": {}}, "no `target_scores`"),
        ({"input": "hat", "target_scores": {"Color": "red"}}, "'Color' has no values"),
        ({"input": "hat", "target_scores": {"Color": {"red": 1}}}, "'red' is not in the title"),
    ],
)
def test_a_broken_line_is_counted_with_its_number(tmp_path: Path, line: object, reason: str) -> None:
    good = {"input": "red hat", "category": "Hat", "target_scores": {"Color": {"red": 1}}}
    records, tally = read(tmp_path, good, line)
    assert len(records) == 1
    assert (tally.lines, tally.used, tally.bad) == (2, 1, 1)
    assert "titles.jsonl, line 2: " in tally.faults[0]
    assert reason in tally.faults[0]
    with pytest.raises(DataError, match="too many broken lines"):
        tally.check(0.05)


def test_a_missing_file_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        list(read_source(SOURCE, str(tmp_path), Tally("titles.jsonl")))
    assert "sources.root" in caught.value.mend


@pytest.mark.parametrize(
    ("name", "titles", "records", "negatives"), [("ae-110k", 1568, 4360, 630), ("oa-mine", 1452, 7360, 0)]
)
def test_the_real_files(shared: Path, name: str, titles: int, records: int, negatives: int) -> None:
    source = SourceFile(format="ae_jsonl", path=f"attribute_values/{name}_train.jsonl")
    tally = Tally(source.path)
    found = [record for record in read_source(source, str(shared / "data"), tally) if isinstance(record, Attributed)]
    assert (tally.lines, tally.used, tally.bad) == (titles, titles, 0)
    assert len(found) == records
    assert sum(not record.evidences for record in found) == negatives
    assert all(value in record.paragraphs[0][0] for record in found for value, _ in record.evidences)
