"""Formats esci_csv and esci_vespa: small cuts of Shopping Queries."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.judged_pairs import read_esci_csv, read_esci_vespa
from ecellm.sources.lines import File
from ecellm.sources.read import read_source
from ecellm.sources.records import Judgement
from ecellm.sources.tally import Tally

CSV = SourceFile(format="esci_csv", path="pairs.csv")
VESPA = SourceFile(format="esci_vespa", path="x_judgements.csv")
FULL = "example_id,query,product_id,product_locale,esci_label,small_version,split,product_title\n"


def read(folder: Path, text: str, source: SourceFile = CSV) -> tuple[list[Judgement], Tally]:
    path = folder / source.path
    path.write_text(text, encoding="utf-8")
    tally = Tally(str(path))
    reader = read_esci_csv if source.format == "esci_csv" else read_esci_vespa
    return list(reader(File(str(path)), source, tally)), tally


def test_labels_spelled_out_become_letters(tmp_path: Path) -> None:
    rows = "".join(
        f"{k},q,p{k},us,{label},0,,t\n" for k, label in enumerate(["Exact", "Substitute", "Complement", "I"])
    )
    found, _ = read(tmp_path, FULL + rows)
    assert [judgement.label for judgement in found] == ["E", "S", "C", "I"]
    assert found[0] == Judgement(example="0", query="q", product="p0", title="t", label="E", locale="us", small=False, split="", line=2)  # fmt: skip # noqa: E501


def test_lost_columns_leave_the_pair_usable(tmp_path: Path) -> None:
    (judgement,), _ = read(tmp_path, 'query,product_id,esci_label,product_title\n"usb, red",B1,S,"a\nb"\n')
    assert (judgement.example, judgement.locale, judgement.small) == ("usb, red|B1", "us", True)
    assert (judgement.query, judgement.title, judgement.split) == ("usb, red", "a\nb", "")


def test_the_run_file_s_split_wins(tmp_path: Path) -> None:
    source = CSV.model_copy(update={"split": "val"})
    (judgement,), _ = read(tmp_path, FULL + "1,q,p,us,E,1,train,t\n", source)
    assert judgement.split == "val"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,q,p,us,X,1,train,t", "none of E, S, C, I"),
        ("1,q,,us,E,1,train,t", "query, product or title"),
        ("1,q,p,us,E,1,train,", "query, product or title"),
        ("1,q,p", "3 cells under 8 columns"),
    ],
)
def test_a_broken_row_is_counted(tmp_path: Path, row: str, reason: str) -> None:
    found, tally = read(tmp_path, FULL + "1,q,p,us,E,1,train,t\n" + row + "\n")
    assert len(found) == 1
    assert (tally.lines, tally.used, tally.bad) == (2, 1, 1)
    assert "pairs.csv, line 3: " in tally.faults[0]
    assert reason in tally.faults[0]


def test_a_table_without_titles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns are missing") as caught:
        read(tmp_path, "query,product_id,esci_label\nq,p,E\n")
    assert caught.value.expected == "product_title"


def products(folder: Path, *ids: str) -> None:
    lines = [json.dumps({"put": name, "fields": {"id": name, "title": "title " + name}}) for name in ids]
    (folder / "x_products.jsonl").write_text("\n".join(lines) + "\n")


def test_vespa_joins_titles_from_the_file_beside(tmp_path: Path) -> None:
    products(tmp_path, "a", "b")
    text = "example_id,query,product_id,esci_label,split\n1,q,b,S,test\n2,q,zzz,E,test\n"
    (judgement,), tally = read(tmp_path, text, VESPA)
    assert (judgement.title, judgement.label, judgement.split) == ("title b", "S", "test")
    assert (tally.lines, tally.used, tally.bad, tally.skipped) == (4, 2, 1, 1), "product a is in no judgement"
    folder = VESPA.model_copy(update={"path": tmp_path.name})
    assert list(read_source(folder, str(tmp_path.parent), Tally("x"))) == [judgement]


def test_vespa_counts_the_lines_of_its_product_file(tmp_path: Path) -> None:
    products(tmp_path, "a")
    with open(tmp_path / "x_products.jsonl", "a") as file:
        file.write('{broken\n{"fields": {"id": 5}}\n')
    found, tally = read(tmp_path, "query,product_id,esci_label\nq,a,S\nq,,S\n", VESPA)
    assert len(found) == 1
    assert (tally.lines, tally.used, tally.bad, tally.skipped) == (5, 2, 3, 0)
    assert [fault.partition(":")[0] for fault in tally.faults] == [
        "x_products.jsonl, line 2", "x_products.jsonl, line 3", "x_judgements.csv, line 3",
    ]  # fmt: skip


def test_vespa_needs_its_product_file_and_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x_products.jsonl: no such file"):
        read(tmp_path, "query,product_id,esci_label\nq,b,S\n", VESPA)
    products(tmp_path, "a")
    with pytest.raises(DataError, match="not a judgements file"):
        list(read_source(VESPA.model_copy(update={"path": "x_products.jsonl"}), str(tmp_path), Tally("x")))


@pytest.mark.parametrize(
    ("format", "name", "labels", "queries"),
    [
        ("esci_csv", "mpc_200", {"E": 95, "S": 32, "I": 5}, 132),
        ("esci_csv", "joined_titles", {"E": 49, "S": 18, "I": 13, "C": 2}, 27),
        ("esci_csv", "exact_only_50_queries", {"E": 485}, 50),
        ("esci_vespa", "one_query_16_judgements", {"E": 3, "S": 6, "I": 7}, 1),
    ],
)
def test_the_real_files(shared: Path, format: str, name: str, labels: dict[str, int], queries: int) -> None:
    source = SourceFile.model_validate({"format": format, "path": f"esci/{name}.csv"})
    tally = Tally(source.path)
    found = [record for record in read_source(source, str(shared / "data"), tally) if isinstance(record, Judgement)]
    assert Counter(judgement.label for judgement in found) == labels
    assert len({judgement.query for judgement in found}) == queries
    beside = sum(labels.values()) if format == "esci_vespa" else 0  # a product for each judgement
    assert (tally.lines, tally.used, tally.bad) == (sum(labels.values()) + beside, tally.lines, 0)


def test_exact_pairs_get_irrelevant_products_of_other_queries_for_training_only(tmp_path: Path) -> None:
    rows = "".join(f"{k},lamp,l{k},us,E,1,test,desk lamps {k}\n" for k in range(4))
    rows += "".join(f"{10 + k},red shoe,s{k},us,E,1,test,shoes {k}\n" for k in range(4))
    rows += "20,lamp shade,x,us,E,1,test,lamp shade\n30,lamp,s9,us,S,1,test,shoes 9\n"
    (tmp_path / "pairs.csv").write_text(FULL + rows)
    source = SourceFile(format="esci_exact", path="pairs.csv")
    tally = Tally("x")
    found = [record for record in read_source(source, str(tmp_path), tally) if isinstance(record, Judgement)]
    assert {judgement.split for judgement in found} == {"train"}
    lamp = [judgement for judgement in found if judgement.query == "lamp"]
    assert Counter(judgement.label for judgement in lamp) == {"E": 2, "I": 2}
    assert {judgement.title.split()[0] for judgement in lamp if judgement.label == "I"} == {"shoes"}
    assert len({judgement.example for judgement in found}) == len(found)
    shown = {judgement.title for judgement in found}
    assert len(shown) < 10
    assert (tally.lines, tally.used, tally.skipped, tally.bad) == (10, len(shown), 10 - len(shown), 0)


def test_the_real_exact_file(shared: Path) -> None:
    source = SourceFile(format="esci_exact", path="esci/exact_only_50_queries.csv")
    tally = Tally(source.path)
    found = [record for record in read_source(source, str(shared / "data"), tally) if isinstance(record, Judgement)]
    labels = Counter(judgement.label for judgement in found)
    assert labels["I"] == 100
    assert 50 <= labels["E"] <= 100
    assert (tally.lines, tally.bad) == (485, 0)
    assert labels["E"] <= tally.used <= len(found)
    assert tally.used + tally.skipped == 485
