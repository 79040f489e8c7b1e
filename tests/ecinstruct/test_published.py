"""Import of the published form, with its oddities (spec A.7)."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ecellm.config.schema import Model, Run, Sources
from ecellm.ecinstruct import published
from ecellm.ecinstruct.build import build
from ecellm.ecinstruct.importing import differences, expected_counts
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


def test_the_published_numbers_add_up() -> None:
    counts = expected_counts()
    assert sum(counts.values()) == 263_562
    assert sum(n for (_, split, kind), n in counts.items() if split == "train" and "Diverse" in kind) == 92_022
    assert differences(counts) == []
    assert differences(counts - Counter({("PM", "val", "IND_Single_Instruction"): 3})) == [
        "PM val IND_Single_Instruction: 250 rows, published 253"
    ]


def test_counts_that_differ_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(RECORDS))
    build(_run(tmp_path, str(tmp_path / "dataset.json")))
    said = capfd.readouterr().err
    assert "numbers of rows differ from the published ones" in said
    assert "AVE test IND_Diverse_Instruction: 0 rows, published 1,000" in said
    card = json.loads((tmp_path / "out" / "rows" / "card.json").read_text())
    assert card["published_rows"] == 263_562
    assert len(card["differences_from_published"]) == len(expected_counts())


def test_a_folder_goes_through_datasets(tmp_path: Path) -> None:
    """As a hub name would: `datasets` streams it."""
    folder = tmp_path / "copy"
    folder.mkdir()
    clean = [{key: record.get(key) for key in (*BASE, "task", "input", "output", "options")} for record in RECORDS[2:]]
    (folder / "dataset.jsonl").write_text("\n".join(json.dumps(record) for record in clean))
    rows = list(published.rows_of(str(folder)))
    assert [row.input for row in rows] == [str(record["input"]) for record in RECORDS[2:]]
    assert published.is_dataset("NingLab/ECInstruct")
    assert not published.is_dataset(str(tmp_path / "dataset.json"))
    assert not published.is_dataset("data/dataset.json")


def test_packed_remote_and_on_the_web(tmp_path: Path, s3: str, web: Callable[[Path], str]) -> None:
    text = json.dumps(RECORDS).encode()
    (tmp_path / "dataset.json.gz").write_bytes(gzip.compress(text))
    (tmp_path / "dataset.json").write_bytes(text)
    open_storage(s3).write("data/dataset.json", text)
    wanted = [row.id for row in published.rows_of(str(tmp_path / "dataset.json"))]
    for location in (str(tmp_path / "dataset.json.gz"), f"{s3}/data/dataset.json", web(tmp_path) + "/dataset.json"):
        assert [row.id for row in published.rows_of(location)] == wanted
    build(_run(tmp_path, f"{s3}/data/dataset.json"))
    assert len(read_rows(open_storage(str(tmp_path / "out")), split="test")) == 5


def test_a_cut_off_packed_file(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(RECORDS * 50).encode())
    (tmp_path / "dataset.json.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="cut off"):
        list(published.rows_of(str(tmp_path / "dataset.json.gz")))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """60 MB of rows in a process whose heap may not hold them."""
    path = tmp_path / "dataset.json"
    record = json.dumps({**RECORDS[3], "input": "x" * 3000})
    with path.open("w") as file:
        file.write("[" + ",\n".join([record] * 20_000) + "]")
    code = (
        "import sys, tracemalloc; from ecellm.ecinstruct.published import json_records\n"
        "tracemalloc.start()\n"
        "n = sum(1 for _ in json_records(sys.argv[1]))\n"
        "print(n, tracemalloc.get_traced_memory()[1])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(root)})  # fmt: skip
    rows, peak = map(int, done.stdout.split())
    assert rows == 20_000
    assert peak < 20 << 20 < path.stat().st_size
