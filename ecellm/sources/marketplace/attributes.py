"""Made-up marketplace: products with marked attribute values, in the form of MAVE's split files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from ecellm.sources.marketplace.words import ATTRIBUTES
from ecellm.sources.marketplace.world import Item, World, description, features, title


def make_attributes(world: World, seed: int, start: int, stop: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(split, `positives` or `negatives`, record) with one attribute a record, as the public splitter writes them.

    Of the products from `start` up to `stop`; the draws of a range depend on the seed and its start alone.
    A product's split is the sum of its paragraphs' bytes modulo 10: 0 to 7 train, 8 eval, 9 test.
    """
    draw = random.Random(f"attributes {seed} {start}")
    for item in world.items[start:stop]:
        paragraphs = [{"text": title(item, draw), "source": "title"}]
        if draw.random() < 0.7:
            paragraphs.append({"text": description(item, draw), "source": "description"})
        if draw.random() < 0.5:
            paragraphs += [{"text": text, "source": "feature"} for text in features(item, draw)]
        paragraphs.append({"text": item.brand, "source": "brand"})
        rest = sum(json.dumps(paragraphs).encode()) % 10
        split = "train" if rest < 8 else ("eval" if rest == 8 else "test")
        stated = {name: _evidences(paragraphs, item, name) for name in item.values}
        present = [name for name, found in stated.items() if found]
        for name in draw.sample(present, min(2, len(present))):
            yield split, "positives", _record(item, paragraphs, name, stated[name])
        if draw.random() < 0.45:
            absent = [name for name in ATTRIBUTES if not stated.get(name)]
            yield split, "negatives", _record(item, paragraphs, draw.choice(absent), [])


def _evidences(paragraphs: list[dict[str, str]], item: Item, name: str) -> list[dict[str, Any]]:
    found, value = [], item.values[name]
    for number, paragraph in enumerate(paragraphs):
        begin = f" {paragraph['text']} ".replace(".", " ").find(f" {value} ")
        if begin >= 0:
            found.append({"value": value, "pid": number, "begin": begin, "end": begin + len(value)})
    return found


def _record(item: Item, paragraphs: list[dict[str, str]], name: str, evidences: list[dict[str, Any]]) -> dict[str, Any]:
    attribute = {"key": name.title(), "evidences": evidences}
    return {"id": item.id, "category": item.type, "paragraphs": paragraphs, "attributes": [attribute]}
