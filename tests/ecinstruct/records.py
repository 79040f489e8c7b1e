"""Small made-up records for the builders' tests."""

from __future__ import annotations

from typing import Any

from ecellm.sources.records import Attributed, CatalogueItem, Judgement, Match, Product, Question, Review


def item(catalogue: str, number: int, **more: Any) -> CatalogueItem:
    values: dict[str, Any] = {"catalogue": catalogue, "id": f"{catalogue[0]}{number}", "title": f"item number {number}",
                              "description": None, "manufacturer": "acme", "price": None}  # fmt: skip
    return CatalogueItem(**{**values, **more})


def catalogue(n: int, unmatched: int = 0) -> list[tuple[str, Any]]:
    records: list[Any] = [item(side, i) for side in ("amazon", "google") for i in range(n + unmatched)]
    records += [Match(amazon=f"a{i}", google=f"g{i}") for i in range(n)]
    return [("amazon_google:x", record) for record in records]


def attributed(**more: Any) -> Attributed:
    values: dict[str, Any] = {
        "id": "1", "category": "C", "split": "", "attribute": "Type",
        "paragraphs": (("Acme Blue Mug", "title"), ("A big Mug.", "description"), ("Holds 12 oz", "feature"),
                       ("Dishwasher safe", "feature"), ("$9.99", "price"), ("Acme", "brand")),
        "evidences": (("Mug", "description"), ("Mug", "title"), ("Mug", "title")),
    }  # fmt: skip
    return Attributed(**{**values, **more})


def product(number: int, **more: Any) -> Product:
    values: dict[str, Any] = {"id": f"P{number}", "title": f"thing {number}", "group": "Toys", "domain": "IND",
                              "category": ("Toys", "Games"), "brand": "Acme", "also_buy": (), "also_view": (),
                              "similar": ()}  # fmt: skip
    return Product(**{**values, **more})


def review(user: str, product: str, **more: Any) -> Review:
    text = f"a review of {product} by {user} that has more than ten words in it"
    values: dict[str, Any] = {"user": user, "product": product, "group": "Toys", "domain": "IND", "rating": 5.0,
                              "text": text, "time": 1}  # fmt: skip
    return Review(**{**values, **more})


def judgement(query: str, number: int, label: str, **more: Any) -> Judgement:
    values: dict[str, Any] = {"example": f"{query}{number}", "query": query, "product": f"P{number}",
                              "title": f"title {number} {query}", "label": label, "locale": "us", "small": True,
                              "split": ""}  # fmt: skip
    return Judgement(**{**values, **more})


def question(number: int, **more: Any) -> Question:
    values: dict[str, Any] = {"id": str(number), "product": f"P{number}", "category": "Electronics", "domain": "IND",
                              "text": f"does thing {number} work?", "descriptive": True,
                              "snippets": ("one two", "three"), "answerable": True, "split": "",
                              "answers": (("no", 0, 3), ("It does.", 4, 5), ("so", 9, 0))}  # fmt: skip
    return Question(**{**values, **more})
