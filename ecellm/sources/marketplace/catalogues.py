"""Made-up marketplace: two shops' catalogues with overlapping products, in the form of Amazon-Google Products."""

from __future__ import annotations

import csv
import os
import random

from ecellm.sources.marketplace.words import FOREIGN, NAMED
from ecellm.sources.marketplace.world import Item, World, description, title

_SHORT = {"black": "blk", "white": "wht", "medium": "med", "large": "lg", "small": "sm", "plastic": "plas"}


def write_catalogues(folder: str, world: World, noise: float, seed: int) -> None:
    """`Amazon.csv`, `GoogleProducts.csv`, `Amzon_GoogleProducts_perfectMapping.csv`; latin-1, as the real ones.

    Half of the products are in both shops; the second shop has further products of the same types and brands.
    """
    os.makedirs(folder, exist_ok=True)
    draw = random.Random(f"catalogues {seed}")
    shared = world.items[::2]
    amazon = [[item.id.lower(), title(item, draw), *_rest(item, draw, noise)] for item in shared]
    google = [[_link(item), _other_title(item, draw), *_rest(item, draw, noise + 0.2)] for item in shared]
    for item in world.items[1::4]:
        google.append([_link(item), _other_title(item, draw), *_rest(item, draw, noise + 0.2)])
    draw.shuffle(google)
    heads = ["id", "title", "description", "manufacturer", "price"]
    _write(os.path.join(folder, "Amazon.csv"), heads, amazon)
    _write(os.path.join(folder, "GoogleProducts.csv"), ["id", "name", *heads[2:]], google)
    mapping = [[item.id.lower(), _link(item)] for item in shared]
    _write(os.path.join(folder, "Amzon_GoogleProducts_perfectMapping.csv"), ["idAmazon", "idGoogleBase"], mapping)


def _link(item: Item) -> str:
    return f"http://made-up.example/base/feeds/snippets/{int(item.id[2:]) * 7919 % 10**8:08d}"


def _other_title(item: Item, draw: random.Random) -> str:
    """The same product in another shop's words: other order, abbreviations, sometimes no brand."""
    words = [value for name, value in item.values.items() if name in NAMED][:3]
    words = [_SHORT.get(word, word) if draw.random() < 0.4 else word for word in words if draw.random() < 0.85]
    draw.shuffle(words)
    brand = [item.brand.lower()] if draw.random() < 0.85 else []
    return " ".join([item.type, *words, *brand, *([item.model] if draw.random() < 0.6 else [])])


def _rest(item: Item, draw: random.Random, noise: float) -> list[str]:
    """Description, manufacturer, price; each sometimes missing, the price a little off."""
    text = "" if draw.random() < noise else description(item, draw)
    if draw.random() < noise / 4:
        text = draw.choice(FOREIGN)
    maker = "" if draw.random() < 0.3 else item.brand.lower()
    price = "" if draw.random() < noise else f"{item.price * draw.uniform(0.97, 1.03):.2f}"
    return [text, maker, price]


def _write(path: str, heads: list[str], rows: list[list[str]]) -> None:
    with open(path, "w", encoding="latin-1", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([heads, *rows])
