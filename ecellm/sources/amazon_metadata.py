"""Amazon product metadata: 2018 (JSON lines), 2014 (one Python literal a line), 2023 (JSON lines or Parquet).

2014 has `related` and `categories` (paths), 2018 `also_buy` and `category`; 2023 has `parent_asin`, `store` for the
brand and one list of `categories`, and no links but `bought_together`. `similar_item` is a piece of HTML; the ids in
it are what stands after the word asin, whatever quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.sources.amazon_reviews import group_of
from ecellm.sources.lines import Place, id_of, json_objects, text_of
from ecellm.sources.records import Product
from ecellm.sources.tally import Tally

ASIN = re.compile(r"asin\W{1,4}([A-Z0-9]{10})(?![A-Za-z0-9])")


def read(place: Place, source: SourceFile, tally: Tally) -> Iterator[Product]:
    """One Product a line; a line without an id is rejected, missing texts become ""."""
    group, name = group_of(place.location, source), place.location
    for number, line in json_objects(place, tally, literals=True):
        asin = id_of(line.get("asin") or line.get("parent_asin"))
        if not asin:
            tally.reject(number, "no asin", name)
            continue
        tally.good()
        related = line.get("related")
        links: dict[str, Any] = related if isinstance(related, dict) else {}
        also_buy = line.get("also_buy", links.get("also_bought", line.get("bought_together")))
        yield Product(
            id=asin,
            title=text_of(line.get("title")),
            group=group,
            domain=source.domain,
            category=_category(line),
            brand=text_of(line.get("brand") or line.get("store")),
            also_buy=_ids(also_buy),
            also_view=_ids(line.get("also_view", links.get("also_viewed"))),
            similar=_similar(line.get("similar_item")),
            line=number,
            old=bool(links) or _paths(line.get("categories")),
            similar_plain=_one_after(line.get("similar_item")),
        )


def _category(line: dict[str, Any]) -> tuple[str, ...]:
    value = line.get("category")
    if value is None:
        value = line.get("categories")
        if isinstance(value, list) and _paths(value):
            value = value[0]
    if isinstance(value, str):
        value = [value]
    return tuple(text for part in value if (text := text_of(part))) if isinstance(value, list) else ()


def _paths(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _one_after(value: object) -> tuple[str, ...]:
    """The ten characters of each piece behind "asin", the first left out (spec B.3)."""
    pieces = value.split("asin") if isinstance(value, str) else ()
    return tuple(dict.fromkeys(piece[1:11] for piece in pieces if len(piece) > 10))


def _ids(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    found = map(id_of, value) if isinstance(value, list) else ()
    return tuple(dict.fromkeys(part for part in found if part))


def _similar(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return _ids(value)
    return tuple(dict.fromkeys(ASIN.findall(value))) if isinstance(value, str) and value else ()
