"""Amazon product metadata: 2018 (JSON lines) and 2014 (one Python literal a line, `related`, `categories`).

`similar_item` is a piece of HTML; the ids in it are what stands after the word asin, whatever quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.sources.amazon_reviews import group_of
from ecellm.sources.lines import literal_objects, text_of
from ecellm.sources.records import Product
from ecellm.sources.tally import Tally

ASIN = re.compile(r"asin\W{1,4}([A-Z0-9]{10})(?![A-Za-z0-9])")


def read(location: str, source: SourceFile, tally: Tally) -> Iterator[Product]:
    """One Product a line; a line without asin is rejected, missing texts become ""."""
    group, name = group_of(location, source), location
    for number, line in literal_objects(location, tally):
        asin = text_of(line.get("asin"))
        if not asin:
            tally.reject(number, "no asin", name)
            continue
        tally.good()
        related = line.get("related")
        links: dict[str, Any] = related if isinstance(related, dict) else {}
        yield Product(
            id=asin,
            title=text_of(line.get("title")),
            group=group,
            domain=source.domain,
            category=_category(line),
            brand=text_of(line.get("brand")),
            also_buy=_ids(line.get("also_buy", links.get("also_bought"))),
            also_view=_ids(line.get("also_view", links.get("also_viewed"))),
            similar=_similar(line.get("similar_item")),
        )


def _category(line: dict[str, Any]) -> tuple[str, ...]:
    value = line.get("category")
    if value is None:
        paths = line.get("categories")
        value = paths[0] if isinstance(paths, list) and paths else []
    if isinstance(value, str):
        value = [value]
    return tuple(text for part in value if (text := text_of(part))) if isinstance(value, list) else ()


def _ids(value: object) -> tuple[str, ...]:
    found = (text_of(part).strip() for part in value) if isinstance(value, list) else ()
    return tuple(dict.fromkeys(part for part in found if part))


def _similar(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return _ids(value)
    return tuple(dict.fromkeys(ASIN.findall(value))) if isinstance(value, str) else ()
