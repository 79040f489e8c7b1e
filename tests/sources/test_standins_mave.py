"""Format mave on single files of other names than MAVE's: WDC-PAVE."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecellm.config.schema import SourceFile
from ecellm.sources.read import read_source
from ecellm.sources.records import Attributed
from ecellm.sources.tally import Tally


def test_a_value_that_is_not_in_its_paragraph_is_rejected(tmp_path: Path) -> None:
    lines = [
        {"id": str(number), "category": "Hats", "paragraphs": [{"text": "a red hat", "source": "title"}],
         "attributes": [{"key": "Color", "evidences": [{"value": value, "pid": 0, "begin": 2, "end": 5}]}]}
        for number, value in enumerate(["red", "blue"])
    ]  # fmt: skip
    (tmp_path / "x_train_positives.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = SourceFile(format="mave", path="x_train_positives.jsonl", split="val")
    tally = Tally(source.path)
    (record,) = read_source(source, str(tmp_path), tally)
    assert isinstance(record, Attributed)
    assert (record.id, record.split, record.evidences) == ("0", "val", (("red", "title"),))
    assert (tally.used, tally.bad) == (1, 1)
    assert "line 2" in tally.faults[0]
    assert "'blue' is not in its paragraph" in tally.faults[0]


@pytest.mark.parametrize(
    ("name", "lines", "bad", "positives"),
    [
        ("train_positives", 1234, 4, 1230),
        ("train_negatives", 1697, 0, 0),
        ("validation_positives", 694, 1, 693),
        ("validation_negatives", 949, 0, 0),
    ],
)
def test_the_real_files(shared: Path, name: str, lines: int, bad: int, positives: int) -> None:
    source = SourceFile(format="mave", path=f"mave_schema/wdc_pave_{name}.jsonl")
    tally = Tally(source.path)
    found = [record for record in read_source(source, str(shared / "data"), tally) if isinstance(record, Attributed)]
    assert (tally.lines, tally.bad, len(found)) == (lines, bad, lines - bad)
    assert sum(bool(record.evidences) for record in found) == positives
    assert {record.split for record in found} == {""}, "the name of a single file says nothing"
