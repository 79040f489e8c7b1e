"""Import of the published form, with its oddities (spec A.7)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecellm.config.schema import Model, Run, Sources
from ecellm.ecinstruct import published
from ecellm.ecinstruct.build import build
from ecellm.errors import DataError
from ecellm.rows import read_rows
from ecellm.storage.open import open_storage

BASE = {"split": "test", "setting": "IND_Single_Instruction", "instruction": "do", "few_shot_example": None}
RECORDS = [
    {**BASE, "task": "Product_Matching", "input": '{"product 1": NaN}', "output": "yes", "options": None},
    {**BASE, "task": "Product_Matching", "input": '{"product 1": NaN}', "output": "yes", "options": float("nan")},
    {**BASE, "task": "Sequential_Recommendation", "input": "[\"1st: Bob's. A.\", '2nd: x']", "output": "A",
     "options": "['A: x', 'B: y']"},
    {**BASE, "task": "Sentiment_Analysis", "input": "so, [it] {is}", "output": "A: é", "options": "", "split": "train"},
    {**BASE, "task": "Query_Product_Ranking", "input": "{}", "output": "B,A"},
    {**BASE, "task": "Query_Product_Rank", "input": "{} ", "output": "A,B,C", "options": "None"},
]  # fmt: skip


def _run(tmp_path: Path, name: str) -> Run:
    return Run(name="t", out=str(tmp_path / "out"), model=Model(base="tiny"), sources=Sources(published=name))


@pytest.mark.parametrize("form", ["array", "indented", "lines"])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_round_trip(tmp_path: Path, form: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "CHUNK", chunk)
    texts = {"array": json.dumps(RECORDS), "indented": json.dumps(RECORDS, indent=2),
             "lines": "\n".join(json.dumps(record) for record in RECORDS)}  # fmt: skip
    path = tmp_path / "dataset.json"
    path.write_text(texts[form])
    (tmp_path / "label.json").write_text('[["S", "E"], ["E", "S", "I"]]')
    build(_run(tmp_path, str(path)))
    storage = open_storage(str(tmp_path / "out"))
    rows = read_rows(storage, split="test")
    assert [row.input for row in rows] == [str(record["input"]) for record in RECORDS if record["split"] == "test"]
    assert [row.options for row in rows] == [None, None, "['A: x', 'B: y']", None, None]
    assert rows[3].task == rows[4].task == "Query_Product_Rank"
    assert [row.option_labels for row in rows] == [None, None, None, "SE", "ESI"]
    assert rows[0].id != rows[1].id
    assert read_rows(storage, split="train")[0].output == "A: é"
    assert json.loads(storage.read("rows/card.json"))["made_up"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [({"task": "Nonsense"}, "record 2: unknown or missing task"), ({"setting": "IND"}, "setting"),
     ({"split": "dev"}, "split"), ({"output": None}, "output")],
)  # fmt: skip
def test_unknown_values_are_errors(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps([RECORDS[0], {**RECORDS[0], **change}]))
    with pytest.raises(DataError, match=said):
        list(published.rows_of(str(path)))


def test_broken_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text("[\n" + json.dumps(RECORDS[0]) + ',\n{"task": "Prod')
    with pytest.raises(DataError, match=r"line 3: broken after record 1"):
        list(published.rows_of(str(path)))
    with pytest.raises(DataError, match="no such file"):
        list(published.rows_of(str(tmp_path / "nothing.json")))


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(RECORDS))
    (tmp_path / "label.json").write_text('[["S", "E"]]')
    with pytest.raises(DataError, match=r"label\.json does not fit"):
        list(published.rows_of(str(path)))
