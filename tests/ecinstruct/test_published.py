"""Import of the published form, with its oddities (spec A.7)."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from ecellm.config.schema import Build, Model, Run, SourceFile, Sources
from ecellm.ecinstruct import objects, published
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
    monkeypatch.setattr(objects, "CHUNK", chunk)
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
     ({"split": "dev"}, "split"), ({"output": None}, "output"), ({"output": 5}, "output"), ({"input": ["a"]}, "input"),
     ({"task": ["AG"]}, "task"), ({"split": ["test"]}, "split"), ({"instruction": float("nan")}, "instruction")],
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


CLEAN = [{key: record.get(key) for key in (*BASE, "task", "input", "output", "options")} for record in RECORDS[2:]]


def test_what_is_for_datasets(tmp_path: Path) -> None:
    assert published.is_dataset("NingLab/ECInstruct")
    assert not published.is_dataset(str(tmp_path))
    assert not published.is_dataset(str(tmp_path / "dataset.json"))
    assert not published.is_dataset("data/dataset.json")


def test_a_hub_name_goes_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` streams a folder as it does what is on the hub."""
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "dataset.jsonl").write_text("\n".join(json.dumps(record) for record in CLEAN))
    rows = list(published.Published(str(folder)).rows())
    assert [row.input for row in rows] == [str(record["input"]) for record in CLEAN]
    found = published.find("NingLab/ECInstruct")
    assert found.digests() == ("NingLab/ECInstruct@main", ""), "the hub is not asked here"
    with pytest.raises(DataError, match="NingLab/ECInstruct: cannot be had through `datasets`"):
        list(found.rows())
    monkeypatch.setattr(published, "revision_of", lambda name: "abc123")
    assert published.find("NingLab/ECInstruct").digests() == ("revision:abc123", "")


@pytest.mark.parametrize("packed", [False, True])
def test_an_array_on_the_hub_is_read_as_a_stream(tmp_path: Path, packed: bool) -> None:
    """`datasets` would hold all of it: here the first rows are there before a fault behind them is seen."""
    folder = tmp_path / "copy"
    folder.mkdir()
    text = "[" + ",\n".join(json.dumps(record) for record in CLEAN * 9000) + ",\n{broken"
    name = "dataset.json.gz" if packed else "dataset.json"
    (folder / name).write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    (folder / "label.json").write_text("[]")
    rows = published.Published(str(folder)).rows()
    assert [next(rows).input for _ in CLEAN] == [str(record["input"]) for record in CLEAN]
    with pytest.raises(DataError, match=f"{name}, line {len(CLEAN) * 9000 + 1}: broken after record"):
        list(rows)


def test_rows_of_the_hub_stay_while_it_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run(tmp_path, "NingLab/ECInstruct")
    records = iter(CLEAN)
    monkeypatch.setattr(published, "revision_of", lambda name: "abc123")
    monkeypatch.setattr(published, "_hub_records", lambda name, revision: records)
    build(run)
    card = json.loads((tmp_path / "out" / "rows" / "card.json").read_text())
    assert card["sources"][0] | {"licence": ""} == {
        "source": "published:NingLab/ECInstruct", "format": "published", "sha256": "revision:abc123", "licence": "",
    }  # fmt: skip
    monkeypatch.undo()
    before = _bytes(tmp_path)
    build(run)
    other = run.model_copy(update={"sources": Sources(published="NingLab/Other")})
    with pytest.raises(DataError, match="cannot be had"):
        build(other)
    assert _bytes(tmp_path) == before


def _bytes(tmp_path: Path) -> dict[str, bytes]:
    rows = tmp_path / "out" / "rows"
    return {str(path.relative_to(rows)): path.read_bytes() for path in rows.rglob("*") if path.is_file()}


def test_a_folder_is_read_as_its_file_is(tmp_path: Path, s3: str) -> None:
    """Below sources.root too, where it is no hub name; and it is known by what is in it."""
    folder = tmp_path / "data" / "ECInstruct"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("A copy.")
    (folder / "label.json").write_text('[["S", "E"], ["E", "S", "I"]]')
    (folder / "dataset.json").write_text(json.dumps(RECORDS))
    (folder / "half.jsonl").write_text(json.dumps(RECORDS[0]))
    wanted = [(row.id, row.option_labels) for row in published.rows_of(str(folder / "dataset.json"))]
    assert wanted[-1][1] == "ESI"
    run = _run(tmp_path, "data/ECInstruct")
    run = run.model_copy(update={"sources": Sources(published="data/ECInstruct", root=str(tmp_path))})
    build(run)
    test = read_rows(open_storage(str(tmp_path / "out")), split="test")
    assert [(row.id, row.option_labels) for row in test] == [pair for pair in wanted if pair[0] in {r.id for r in test}]
    assert {row.source for row in test} == {"published:ECInstruct"}
    card = json.loads((tmp_path / "out" / "rows" / "card.json").read_text())
    sha256 = hashlib.sha256((folder / "dataset.json").read_bytes()).hexdigest()
    assert (card["sources"][0]["source"], card["sources"][0]["sha256"]) == ("published:ECInstruct", sha256)
    assert str(tmp_path) not in json.dumps(card)
    build(run)
    assert len(read_rows(open_storage(str(tmp_path / "out")), split="test")) == 5
    (folder / "dataset.json").write_text(json.dumps(RECORDS[1:]))
    (folder / "label.json").unlink()
    build(run)
    assert len(read_rows(open_storage(str(tmp_path / "out")), split="test")) == 4, "another file in the same folder"
    for path in folder.iterdir():
        open_storage(s3).upload(str(path), f"data/copy/{path.name}")
    assert len(list(published.find("copy", f"{s3}/data").rows())) == 5


def test_a_folder_without_the_whole_file_gives_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(CLEAN[0]).encode()))
    (tmp_path / "a.json").write_text(json.dumps(CLEAN[1:3]))
    pq.write_table(pa.Table.from_pylist(CLEAN[3:]), tmp_path / "c.parquet")
    found = published.find(str(tmp_path))
    assert [row.input for row in found.rows()] == [str(CLEAN[at]["input"]) for at in (1, 2, 0, 3)]
    before = found.digests()
    (tmp_path / "a.json").write_text(json.dumps(CLEAN[1:2]))
    assert found.digests() != before
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").touch()
    with pytest.raises(DataError, match=r"empty/dataset\.json: no such file"):
        published.find(str(tmp_path / "empty"))


def test_an_import_leaves_nothing_of_a_build_and_a_build_nothing_of_an_import(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    header = '"id","{}","description","manufacturer","price"\n'
    for name, side, title in (("Amazon.csv", "a", "title"), ("GoogleProducts.csv", "g", "name")):
        rows = "".join(f"{side}{i},mug number {i} {chr(97 + i % 26) * 5},,acme{i},{i}\n" for i in range(60))
        (shop / name).write_text(header.format(title) + rows)
    pairs = "".join(f"a{i},g{i}\n" for i in range(60))
    (shop / "Amzon_GoogleProducts_perfectMapping.csv").write_text('"idAmazon","idGoogleBase"\n' + pairs)
    (tmp_path / "dataset.json").write_text(json.dumps(RECORDS))
    imports = _run(tmp_path, str(tmp_path / "dataset.json"))
    files = (SourceFile(format="amazon_google", path="shop"),)
    builds = imports.model_copy(update={"sources": Sources(root=str(tmp_path), files=files),
                                        "build": Build(tasks=("PM",), workers=1)})  # fmt: skip
    build(builds)
    built = _bytes(tmp_path)
    assert "tasks/PM/COMPLETE" in built
    build(imports)
    assert set(_bytes(tmp_path)) == {"COMPLETE", "README.md", "card.json", "train/part-00000.parquet",
                                     "test/part-00000.parquet"}  # fmt: skip
    card = DatasetCard((tmp_path / "out" / "rows" / "README.md").read_text())
    assert card.data.license == "cc-by-4.0"
    assert [one["split"] for one in card.data.configs[0]["data_files"]] == ["train", "test"]
    assert "6 rows of 4 tasks of ECInstruct" in card.text
    assert "| train | IND_Single_Instruction |  |  | 1 |  |" in card.text
    assert hashlib.sha256((tmp_path / "dataset.json").read_bytes()).hexdigest() in card.text
    build(builds)
    assert _bytes(tmp_path) == built


@pytest.mark.parametrize("text", ["None", "nan", "NaN", " ", ""])
def test_an_answer_may_be_any_text_and_options_may_lack(tmp_path: Path, text: str) -> None:
    record = {**RECORDS[0], "task": "Answer_Generation", "input": text, "output": text, "instruction": text,
              "options": text, "few_shot_example": text}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps([record]))
    (row,) = published.rows_of(str(tmp_path / "dataset.json"))
    assert (row.input, row.output, row.instruction) == (text, text, text)
    assert (row.options, row.few_shot_example) == (None, None)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000])
@pytest.mark.parametrize("column", ["options", "input", "more"])
def test_what_python_reads_no_more_is_a_broken_record(tmp_path: Path, column: str, value: str) -> None:
    text = json.dumps([RECORDS[0], {**RECORDS[0], column: "<value>"}]).replace('"<value>"', value)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json, line 1: broken after record 1"):
        list(published.rows_of(str(tmp_path / "dataset.json")))


def test_half_a_pair_of_surrogates_is_replaced(tmp_path: Path) -> None:
    odd = {**RECORDS[0], "input": "a\ud83d", "output": "\udc00", "instruction": "\ud83d\ude00", "options": "\ud83d"}
    (tmp_path / "dataset.json").write_text(json.dumps([odd]))
    build(_run(tmp_path, str(tmp_path / "dataset.json")))
    (row,) = read_rows(open_storage(str(tmp_path / "out")), split="test")
    assert (row.input, row.output, row.instruction, row.options) == ("a\ufffd", "\ufffd", "\U0001f600", "\ufffd")


@pytest.mark.parametrize("labels", ['[["X"]]', "[[", "[" * 5000, "[1]", '[["\\ud83d"]]'])
def test_a_side_file_that_holds_no_labels(tmp_path: Path, labels: str) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(RECORDS))
    (tmp_path / "label.json").write_text(labels)
    with pytest.raises(DataError, match=r"label\.json: no list of label lists"):
        list(published.rows_of(str(tmp_path / "dataset.json")))


def test_no_signature_of_an_address_is_in_a_row(tmp_path: Path, web: Callable[..., str]) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(RECORDS))
    address = web(tmp_path, head=False) + "/dataset.json?X-Amz-Signature=SECRET"
    build(_run(tmp_path, address))
    test = read_rows(open_storage(str(tmp_path / "out")), split="test")
    assert {row.source for row in test} == {"published:dataset.json"}
    assert "SECRET" not in (tmp_path / "out" / "rows" / "card.json").read_text()


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
        "import sys, tracemalloc; from ecellm.ecinstruct.objects import json_records\n"
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
