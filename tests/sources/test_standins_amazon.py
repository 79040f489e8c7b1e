"""The real Amazon files, each with the fault that its SOURCES entry names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ecellm.config.schema import SourceFile
from ecellm.sources.read import read_source
from ecellm.sources.records import CatalogueItem, Match, Product, Review, SourceRecord
from ecellm.sources.tally import Tally


def read(shared: Path, format: str, path: str) -> tuple[list[SourceRecord], Tally]:
    source = SourceFile.model_validate({"format": format, "path": path})
    tally = Tally(path)
    return list(read_source(source, str(shared / "data"), tally)), tally


@pytest.mark.parametrize(
    ("name", "lines", "distinct"),
    [("Gift_Cards_5", 1949, 1949), ("AMAZON_FASHION_5", 3176, 3087), ("Appliances_5", 2277, 203)],
)
def test_reviews_with_their_repeats_and_without_reviewer_names(
    shared: Path, name: str, lines: int, distinct: int
) -> None:
    path = f"amazon2018/{name}.json.gz"
    found, tally = read(shared, "amazon_reviews", path)
    reviews = [record for record in found if isinstance(record, Review)]
    assert (tally.lines, tally.bad, len(reviews)) == (lines, 0, lines)
    assert len({(review.user, review.product, review.text, review.time) for review in reviews}) == distinct
    with gzip.open(shared / "data" / path, "rt", encoding="utf-8") as file:
        names = {json.loads(line).get("reviewerName") for line in file}
    passed_on = {value for review in reviews for value in review}
    assert not {name for name in names if name and len(name) > 6} & passed_on


def test_amazon_google_is_read_as_latin_1(shared: Path) -> None:
    found, tally = read(shared, "amazon_google", "amazon_google")
    items = [record for record in found if isinstance(record, CatalogueItem)]
    assert sum(isinstance(record, Match) for record in found) == 1063
    assert sum(item.catalogue == "google" for item in items) == 2613
    assert tally.bad == 0
    assert any(ord(letter) > 127 for item in items for letter in item.title + (item.description or ""))
    assert not any("\ufffd" in item.title for item in items)


def test_gift_card_metadata_has_the_links_that_prp_needs(shared: Path) -> None:
    found, tally = read(shared, "amazon_metadata", "amazon2018/meta_Gift_Cards.json.gz")
    products = {record.id: record for record in found if isinstance(record, Product)}
    assert tally.bad == 0
    assert sum(link in products for product in products.values() for link in product.also_buy) >= 4771
    assert sum(link in products for product in products.values() for link in product.also_view) >= 5136
    assert not any(product.similar for product in products.values())
