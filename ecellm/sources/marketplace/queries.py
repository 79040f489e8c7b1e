"""Made-up marketplace: search queries with judged products, in the form of the Shopping Queries data set (ESCI)."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecellm.sources.marketplace.words import FOREIGN, GROUPS
from ecellm.sources.marketplace.world import Item, World, complement, description, title

MOST = 100
"""More judgements than any query has, so that examples are numbered without knowing other queries."""
EXAMPLES = pa.schema(
    [
        ("example_id", pa.int64()), ("query", pa.string()), ("query_id", pa.int64()), ("product_id", pa.string()),
        ("product_locale", pa.string()), ("esci_label", pa.string()), ("small_version", pa.int64()),
        ("large_version", pa.int64()), ("split", pa.string()),
    ]
)  # fmt: skip
PRODUCTS = pa.schema(
    [(name, pa.string()) for name in (
        "product_id", "product_title", "product_description", "product_bullet_point", "product_brand", "product_color",
        "product_locale",
    )]
)  # fmt: skip


Record = dict[str, Any]


def make_queries(
    world: World, noise: float, seed: int, start: int, stop: int
) -> tuple[list[Record], dict[tuple[str, str], Record]]:
    """Judgements of queries `start` to `stop`, and the products shown, by (id, locale), with the real columns."""
    draw = random.Random(f"queries {seed} {start}")
    kinds = [kind for types in GROUPS.values() for kind in types if len(world.by_type[kind]) > 2]
    examples: list[Record] = []
    shown: dict[tuple[str, str], Record] = {}
    for number in range(start, stop):
        wanted = draw.choice(world.by_type[draw.choice(kinds)])
        names = draw.sample(["color", "material", "brand"], draw.choice((1, 1, 2)))
        query = " ".join([*(_value(wanted, name) for name in names), wanted.type])
        locale = draw.choice(("us",) * 8 + ("es", "jp"))
        if locale != "us" or draw.random() < noise / 3:
            query = draw.choice(FOREIGN)
        split = "train" if random.Random(f"split {seed} {query}").random() < 0.75 else "test"  # a query has one split
        for place, (label, item) in enumerate(_judged(world, wanted, names, draw)):
            if draw.random() < noise:
                label = draw.choice("ESCI")
            if (item.id, locale) not in shown:
                shown[item.id, locale] = _product(item, locale, names, draw)
            examples.append(
                {
                    "example_id": MOST * number + place, "query": query, "query_id": number, "product_id": item.id,
                    "product_locale": locale, "esci_label": label,
                    "small_version": int(draw.random() < 0.8), "large_version": 1, "split": split,
                }
            )  # fmt: skip
    return examples, shown


def write_piece(judged: str, shown: str, world: World, noise: float, seed: int, start: int, stop: int) -> None:
    """The queries `start` to `stop` as two Parquet files."""
    examples, products = make_queries(world, noise, seed, start, stop)
    pq.write_table(pa.Table.from_pylist(examples, EXAMPLES), judged, compression="zstd")
    pq.write_table(pa.Table.from_pylist(list(products.values()), PRODUCTS), shown, compression="zstd")


def join_pieces(target: str, paths: list[str], schema: pa.Schema) -> None:
    """Pieces to one Parquet file; a product is as it was first shown."""
    known: set[tuple[str, str]] = set()
    with pq.ParquetWriter(target, schema, compression="zstd") as whole:
        for path in paths:
            table = pq.ParquetFile(path).read(use_threads=False)
            if schema is PRODUCTS:
                names = list(zip(table["product_id"].to_pylist(), table["product_locale"].to_pylist(), strict=True))
                table = table.filter(pa.array([name not in known for name in names], pa.bool_()))
                known.update(names)
            whole.write_table(table)


def _value(item: Item, name: str) -> str:
    return item.brand.lower() if name == "brand" else item.values[name]


def _meets(item: Item, wanted: Item, names: list[str]) -> bool:
    return all(_value(item, name) == _value(wanted, name) for name in names)


def _judged(world: World, wanted: Item, names: list[str], draw: random.Random) -> list[tuple[str, Item]]:
    """About eight products: those that meet the query, those of its type that do not, complements, others.

    A shop has few products of a brand that is asked for by name, and shows stand-ins instead.
    """
    exact_count, near_count = (1, 5) if "brand" in names else (4, 1)
    peers = world.by_type[wanted.type]
    looked = draw.sample(peers, min(len(peers), 40))
    exact = [wanted, *[p for p in looked if p.id != wanted.id and _meets(p, wanted, names)]][:exact_count]
    near = [p for p in looked if not _meets(p, wanted, names)][:near_count]
    mates = draw.sample(world.by_type[complement(wanted.type)], draw.choice((0, 1)))
    others = [p for p in draw.sample(world.items, 2) if p.type not in (wanted.type, complement(wanted.type))]
    labelled = [("E", exact), ("S", near), ("C", mates), ("I", others[: draw.choice((1, 2))])]
    return [(label, item) for label, items in labelled for item in items]


def _product(item: Item, locale: str, names: list[str], draw: random.Random) -> dict[str, Any]:
    text = title(item, draw)
    for name in names:  # what a query asks for is judged by the title, so the title says it
        if _value(item, name) not in text.lower().split():
            text = f"{text} {_value(item, name)}"
    return {
        "product_id": item.id, "product_title": text, "product_description": description(item, draw),
        "product_bullet_point": None, "product_brand": item.brand, "product_color": item.values["color"],
        "product_locale": locale,
    }  # fmt: skip
