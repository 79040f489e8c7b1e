"""Made-up marketplace: its records in shards, each a function of the settings, the seed and its range alone.

So any number of processes writes the same files: a shard leaves its pieces in a folder, and `write` joins them in
order. A shard of lines that are to be packed is packed here; pieces of gzip joined are gzip.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from ecellm.config.schema import MadeUp
from ecellm.sources.marketplace.attributes import make_attributes
from ecellm.sources.marketplace.catalogues import write_catalogues
from ecellm.sources.marketplace.queries import EXAMPLES, PRODUCTS, write_piece
from ecellm.sources.marketplace.questions import make_questions
from ecellm.sources.marketplace.reviews import make_metadata, make_reviews
from ecellm.sources.marketplace.words import GROUPS
from ecellm.sources.marketplace.world import World, make_world

IND = ("Electronics", "Home_and_Kitchen", "Sports_and_Outdoors")
OOD = "Tools_and_Home_Improvement"
SIZES = {"attributes": 4000, "questions": 8000, "queries": 2000, "reviews": 2000, "metadata": 4000}
"""Products, questions, queries, users or products of a category in one shard."""
TABLES = {f"shopping_queries_dataset_{name}.parquet": schema
          for name, schema in (("examples", EXAMPLES), ("products", PRODUCTS))}  # fmt: skip
BROKEN = 1000
"""With noise, one line in so many of a packed file is cut in the middle, as in real dumps."""


class Shard(NamedTuple):
    """Part of the marketplace: what, of which category where that matters, from which number to which."""

    kind: str
    group: str
    start: int
    stop: int


def shards_of(settings: MadeUp) -> list[Shard]:
    """All shards, the longest kinds first."""
    groups = [group for group in GROUPS if group in (*IND, OOD)]
    of_group = {group: _products_of(settings.products, group) for group in groups}
    wholes = [
        ("catalogues", "", settings.products), ("reviews", "", settings.users), ("queries", "", settings.queries),
        *(("metadata", group, of_group[group]) for group in groups), ("questions", "", settings.questions),
        ("attributes", "", settings.products),
    ]  # fmt: skip
    return [Shard(kind, group, start, min(whole, start + SIZES.get(kind, whole)))
            for kind, group, whole in wholes for start in range(0, whole, SIZES.get(kind, whole))]  # fmt: skip


def _products_of(products: int, group: str) -> int:
    """How many of the products, dealt out over all types in turn, are of a category."""
    kinds = [name for name, types in GROUPS.items() for _ in types]
    return sum((products - i + len(kinds) - 1) // len(kinds) for i, name in enumerate(kinds) if name == group)


@lru_cache(maxsize=1)
def _world(products: int, seed: int) -> World:
    return make_world(products, seed)


def make_shard(folder: str, settings_json: str, seed: int, shard: Shard) -> None:
    """Write a shard's pieces to `folder/TARGET/START`, where TARGET is the name of the file that they become part
    of."""
    settings = MadeUp.model_validate_json(settings_json)
    world, noise, (kind, group, start, stop) = _world(settings.products, seed), settings.noise, shard
    if kind == "catalogues":
        write_catalogues(os.path.join(folder, "amazon_google"), world, noise, seed)
    elif kind == "queries":
        judged, shown = (_piece(folder, f"esci/{name}", start) for name in TABLES)
        write_piece(judged, shown, world, noise, seed, start, stop)
    elif kind == "metadata":
        metadata = make_metadata(world, group, noise, seed, start, stop)
        _packed(_piece(folder, f"amazon2018/meta_{group}.json.gz", start), metadata, noise, start)
    elif kind == "reviews":
        for name, records in make_reviews(world, settings.users, noise, seed, start, stop).items():
            _packed(_piece(folder, f"amazon2018/{name}.json.gz", start), records, noise, 0)
            _ratings(_piece(folder, f"amazon2018/{name}.csv", start), records)
    else:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        if kind == "attributes":
            for split, sign, record in make_attributes(world, seed, start, stop):
                found[f"mave/splits/PRODUCT/{split}/00_All/mave_{sign}.jsonl"].append(record)
        else:
            for split, record in make_questions(world, noise, seed, start, stop):
                found[f"amazonqa/{split}-qar.jsonl"].append(record)
        for target, records in found.items():
            with open(_piece(folder, target, start), "w", encoding="utf-8") as text:
                text.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def pieces(folder: str) -> Iterator[tuple[str, list[str]]]:
    """(target, paths of its pieces in order) of all that the shards left."""
    for top, _, names in sorted(os.walk(folder)):
        if names:
            yield os.path.relpath(top, folder), [os.path.join(top, name) for name in sorted(names, key=int)]


def _piece(folder: str, target: str, start: int) -> str:
    path = os.path.join(folder, "pieces", target, str(start))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _packed(path: str, records: Iterable[dict[str, Any]], noise: float, first: int) -> None:
    with open(path, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as file:
        for number, record in enumerate(records, first):
            line = json.dumps(record)
            broken = noise > 0 and number % BROKEN == BROKEN // 2
            file.write((line[: len(line) // 2] if broken else line).encode() + b"\n")


def _ratings(path: str, records: Iterable[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for r in records:
            file.write(f"{r['asin']},{r['reviewerID']},{r['overall']},{r['unixReviewTime']}\n")
