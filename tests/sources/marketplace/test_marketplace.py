"""The made-up marketplace: real formats, read with plain csv, json and pyarrow; same bytes; balances; sizes."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ecellm.config.schema import MadeUp
from ecellm.sources.marketplace.write import write_marketplace

SIZES = MadeUp(products=600, users=600, queries=300, questions=1500)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_marketplace(str(folder), SIZES, 1)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def objects(folder: Path, pattern: str) -> list[dict[str, Any]]:
    """JSON lines of the files that match, without those that were cut short on purpose."""
    found = []
    for path in sorted(folder.glob(pattern)):
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text("utf-8")
        for line in text.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                assert not line.endswith("}")
    assert found
    return found


def reviews(folder: Path) -> list[dict[str, Any]]:
    return [r for r in objects(folder, "**/*.json.gz") if "overall" in r]


def metadata(folder: Path) -> list[dict[str, Any]]:
    return list(objects(folder, "**/meta_*.json.gz"))


def test_every_listed_file_is_there_and_the_folder_says_made_up(shop: Path) -> None:
    listed = write_marketplace(str(shop), SIZES, 1)
    assert listed
    assert all((shop / source.path).exists() for source in listed)
    assert "MADE UP" in (shop / "README.txt").read_text("utf-8")


def test_categories_serve_tasks_as_in_the_paper(shop: Path) -> None:
    listed = write_marketplace(str(shop), SIZES, 1)
    roles = {(t, s.category, s.domain) for s in listed for t in s.tasks if s.format in ("amazonqa", "amazon_reviews")}
    tools, cells = "Tools_and_Home_Improvement", "Cell_Phones_and_Accessories"
    assert {("AP", tools, "IND"), ("AP", cells, "OOD"), ("AG", cells, "OOD"), ("SA", tools, "OOD")} <= roles
    assert {("AG", "Electronics", "IND"), ("SA", "Electronics", "IND")} <= roles


def test_same_bytes_whatever_the_hash_seed(shop: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from ecellm.config.schema import MadeUp; "
        "from ecellm.sources.marketplace.write import write_marketplace as w; "
        f"w(sys.argv[1], MadeUp.model_validate_json({SIZES.model_dump_json()!r}), 1)"
    )
    for hash_seed in ("0", "77"):
        folder = tmp_path / hash_seed
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
        assert digests(folder) == digests(shop)


def test_another_seed_gives_other_bytes(shop: Path, tmp_path: Path) -> None:
    write_marketplace(str(tmp_path), SIZES, 2)
    other, one = digests(tmp_path), digests(shop)
    assert other.keys() == one.keys()
    # Which products both catalogues list is fixed, so the mapping holds the same ids under every seed.
    fixed = {"README.txt", "amazon_google/Amzon_GoogleProducts_perfectMapping.csv"}
    assert {name for name in one if other[name] == one[name]} <= fixed


def test_stars_are_as_uneven_as_real_ones(shop: Path) -> None:
    stars = Counter(r["overall"] for r in reviews(shop))
    total = sum(stars.values())
    assert set(stars) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert 0.48 < stars[5.0] / total < 0.65
    assert min(stars.values()) / total > 0.03


def test_reviewer_names_stay_in_their_field(shop: Path) -> None:
    names = {r["reviewerName"] for r in reviews(shop)}
    others = [{k: v for k, v in r.items() if k != "reviewerName"} for r in reviews(shop)]
    texts = json.dumps(others) + json.dumps(metadata(shop)) + json.dumps(objects(shop, "amazonqa/*.jsonl"))
    assert names
    assert not [name for name in names if name in texts]


def test_five_core_keeps_nearly_all_ratings(shop: Path) -> None:
    for path in sorted(shop.glob("**/[EHST]*.csv")):
        with path.open(newline="") as file:
            all_rows = {tuple(row) for row in csv.reader(file) if len(row) == 4}
        kept, before = all_rows, -1
        while len(kept) != before:
            before = len(kept)
            users, items = Counter(r[1] for r in kept), Counter(r[0] for r in kept)
            kept = {r for r in kept if users[r[1]] >= 5 and items[r[0]] >= 5}
        assert len(kept) > 0.95 * len(all_rows), path.name


def test_each_pair_of_products_has_mostly_one_relation(shop: Path) -> None:
    relations: dict[tuple[str, str], set[str]] = {}
    for r in metadata(shop):
        assert re.fullmatch(r"MU[0-9A-Z]{8}", r["asin"])
        similar = re.findall(r"asin.(\w{10})", r["similar_item"])
        found = {"buy": r["also_buy"], "view": r["also_view"], "similar": similar}
        for name, ids in found.items():
            for other in ids:
                relations.setdefault((min(r["asin"], other), max(r["asin"], other)), set()).add(name)
    single = Counter(next(iter(names)) for names in relations.values() if len(names) == 1)
    assert single.total() > 0.95 * len(relations)
    assert set(single) == {"buy", "view", "similar"}
    assert min(single.values()) > 0.1 * single.total()


def test_offsets_of_attribute_values_are_right(shop: Path) -> None:
    where = "mave/splits/PRODUCT/{}/00_All/mave_{}.jsonl"
    for split in ("train", "eval", "test"):
        positives = objects(shop, where.format(split, "positives"))
        for record in positives:
            (attribute,) = record["attributes"]
            assert attribute["evidences"]
            for e in attribute["evidences"]:
                assert record["paragraphs"][e["pid"]]["text"][e["begin"] : e["end"]] == e["value"]
        negatives = objects(shop, where.format(split, "negatives"))
        assert all(record["attributes"][0]["evidences"] == [] for record in negatives)
        assert 0.1 < len(negatives) / (len(negatives) + len(positives)) < 0.5


def test_catalogues_join_and_differ(shop: Path) -> None:
    def table(name: str) -> list[list[str]]:
        with (shop / "amazon_google" / name).open(encoding="latin-1", newline="") as file:
            return list(csv.reader(file))

    amazon, google = table("Amazon.csv"), table("GoogleProducts.csv")
    mapping = table("Amzon_GoogleProducts_perfectMapping.csv")
    assert amazon[0] == ["id", "title", "description", "manufacturer", "price"]
    assert google[0] == ["id", "name", "description", "manufacturer", "price"]
    assert mapping[0] == ["idAmazon", "idGoogleBase"]
    assert len(google) > len(amazon)
    left, right = {r[0]: r for r in amazon[1:]}, {r[0]: r for r in google[1:]}
    same = [left[a][1].lower() == right[g][1].lower() for a, g in mapping[1:]]
    assert same
    assert sum(same) < 0.1 * len(same)


def test_search_tables_join_and_hold_four_labels(shop: Path) -> None:
    examples = pq.read_table(shop / "esci" / "shopping_queries_dataset_examples.parquet").to_pylist()
    products = pq.read_table(shop / "esci" / "shopping_queries_dataset_products.parquet").to_pylist()
    known = {(p["product_id"], p["product_locale"]) for p in products}
    assert all((x["product_id"], x["product_locale"]) in known for x in examples)
    assert {x["product_locale"] for x in examples} == {"us", "es", "jp"}
    labels = Counter(x["esci_label"] for x in examples)
    assert set(labels) == set("ESCI")
    assert labels["E"] < 0.6 * len(examples)
    assert min(labels.values()) > 0.04 * len(examples)
    splits: dict[int, set[str]] = {}
    for x in examples:
        splits.setdefault(x["query_id"], set()).add(x["split"])
    assert all(len(names) == 1 for names in splits.values())


def test_answerability_is_not_told_by_the_number_of_snippets(shop: Path) -> None:
    questions = objects(shop, "amazonqa/*.jsonl")
    share = sum(q["is_answerable"] for q in questions) / len(questions)
    assert 0.5 < share < 0.7
    for count in {len(q["review_snippets"]) for q in questions}:
        some = [q["is_answerable"] for q in questions if len(q["review_snippets"]) == count]
        assert abs(sum(some) / len(some) - share) < 0.08


def test_sizes_follow_the_settings(shop: Path, tmp_path: Path) -> None:
    write_marketplace(str(tmp_path), SIZES.model_copy(update={"questions": 300, "products": 1200}), 1)
    assert len(objects(tmp_path, "amazonqa/*.jsonl")) == pytest.approx(300, rel=0.02)
    assert len(objects(shop, "amazonqa/*.jsonl")) == pytest.approx(1500, rel=0.02)
    assert len(metadata(tmp_path)) == pytest.approx(2 * len(metadata(shop)), rel=0.05)
