"""PM, product matching (spec B.2): pairs of an Amazon and a Google catalogue entry, as many matches as not.

`paper`: the authors' walk over both shuffled catalogues for the negatives, their split of positives then negatives by
scikit-learn's draw, NaN written as their code writes it; the catalogues' own order of rows goes in. `sound`: whole
connected components go to a split first, then negatives are drawn inside it, hard ones (entries that share most title
words) unless told otherwise, so no product is in two splits. Of very big catalogues as many entries take part as are
drawn from for what is asked; which, is told by hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from ecellm.ecinstruct import cleaning, negatives
from ecellm.ecinstruct.choose import MORE
from ecellm.ecinstruct.draws import mark, order, rank
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import At, Family, Stage
from ecellm.ecinstruct.negatives import Pair, node
from ecellm.ecinstruct.picks import Picks
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.replay import split_three
from ecellm.ecinstruct.samples import Sample
from ecellm.ecinstruct.splits import by_hash, by_neighbourhood
from ecellm.sources.records import CatalogueItem, Match

SPARE, LEAST = 4, 4000
"""Matches that take part for each pair asked, and the least number of them; as many unmatched entries of each side."""
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
ITEMS = pa.schema(
    [
        ("catalogue", pa.string()), ("id", pa.string()), ("title", pa.string()), ("description", pa.string()),
        ("manufacturer", pa.string()), ("price", pa.string()), ("source", pa.string()), ("place", pa.uint64()),
    ]
)  # fmt: skip
MATCHES = pa.schema([("amazon", pa.string()), ("google", pa.string()), ("source", pa.string()), ("place", pa.uint64())])
WANTED = pa.schema([("item", pa.uint64())])


def scatter(desk: Desk, record: CatalogueItem | Match, at: At) -> None:
    """Entries to the parts of their ids, matches to one."""
    if isinstance(record, Match):
        desk.emit("matches", 0, record.amazon, record.google, at.source, at.place)
        return
    desk.tell("items", record.catalogue)
    if desk.recipe.mends.clean_text:
        said = (record.title, record.description, record.manufacturer, record.price)
        desk.change(cleaning.MARKUP, sum(cleaning.marked(text) for text in said if text))
    desk.change(f"cut at {desk.recipe.description_words} words", _is_cut(record.description, desk.recipe))
    desk.emit("items", _mark(record.catalogue, record.id), record.catalogue, record.id, record.title,
              record.description, record.manufacturer, record.price, at.source, at.place)  # fmt: skip


def _mark(catalogue: str, number: str) -> int:
    return mark(f"{catalogue}\x1f{number}")


def want(desk: Desk) -> None:
    """Which entries take part: of all matches, or of the first in drawing order, and some unmatched ones by hash."""
    limit = max(LEAST, SPARE * desk.recipe.asked)
    matches = sorted({(row[0], row[1]) for row in desk.rows("matches", 0)}, key=lambda m: (rank(desk.seed, *m), m))
    if not desk.recipe.paper:
        desk.drop(MORE, "", max(0, len(matches) - limit))
        matches = matches[:limit]
    items = {_mark(catalogue, number) for match in matches
             for catalogue, number in zip(("amazon", "google"), match, strict=True)}  # fmt: skip
    desk.share("wanted", pa.Table.from_pydict({"item": sorted(items)}, schema=WANTED))
    for catalogue in ("amazon", "google"):
        there = desk.facts("items").get(catalogue, 0)
        share = 1.0 if desk.recipe.paper or there <= 2 * limit else limit / there
        desk.tell("share", catalogue, int(share * 2**32))


def keep(desk: Desk, part: int) -> None:
    """The entries that take part, to one table."""
    wanted = set(desk.shared("wanted", "want")["item"].to_pylist())
    share = desk.facts("share", "want")
    for row in desk.rows("items", part):
        own = _mark(row[0], row[1])
        if own in wanted or own >> 32 < share[row[0]]:
            desk.emit("kept", 0, *row)
        else:
            desk.tell("passed over", row[0])


def build(desk: Desk) -> None:
    """Pairs, offered to their pools."""
    rows = sorted(desk.rows("kept", 0, "keep"), key=lambda row: row[7])
    found: dict[str, dict[str, CatalogueItem]] = {"amazon": {}, "google": {}}
    for catalogue, number, title, description, manufacturer, price, _, _ in rows:
        one = CatalogueItem(catalogue=catalogue, id=number, title=title, description=description,
                            manufacturer=manufacturer, price=price)  # fmt: skip
        if number in found[catalogue]:
            desk.drop("entry whose id was met before")
        found[catalogue].setdefault(number, one)
    if not desk.recipe.mends.json_text:
        found = {catalogue: _as_numbers(items) for catalogue, items in found.items()}
    source = " + ".join(sorted({row[6] for row in rows}))
    matches = sorted(desk.rows("matches", 0), key=lambda row: row[3])
    names = list(dict.fromkeys((row[0], row[1]) for row in matches))
    desk.drop("match stated twice", n=len(matches) - len(names))
    amazon, google = found["amazon"], found["google"]
    known = [(a, g) for a, g in names if a in amazon and g in google]
    if desk.recipe.paper or len(names) <= max(LEAST, SPARE * desk.recipe.asked):
        desk.drop("match without both entries", n=len(names) - len(known))
    pairs = _distinct(desk, [(amazon[a], google[g]) for a, g in known])
    if desk.recipe.paper:
        _paper(desk, source, pairs, set(known), list(amazon.values()), list(google.values()))
    else:
        _sound(desk, source, pairs, set(known), list(amazon.values()), list(google.values()))


def _as_numbers(items: dict[str, CatalogueItem]) -> dict[str, CatalogueItem]:
    """Prices as pandas reads a column of numbers that are not all whole, or have gaps: `49` is `49.0`.

    A column with any other text stays as it is.
    """
    prices = [item.price for item in items.values()]
    whole = all(price and _WHOLE.fullmatch(price) for price in prices)
    if whole or not all(_NUMBER.fullmatch(price) for price in prices if price):
        return items
    return {name: item._replace(price=str(float(item.price)) if item.price else None) for name, item in items.items()}


def _sound(
    desk: Desk, source: str, pairs: list[Pair], known: set[tuple[str, str]], amazon: list[CatalogueItem],
    google: list[CatalogueItem],
) -> None:  # fmt: skip
    recipe = desk.recipe
    pairs.sort(key=lambda pair: (pair[0].id, pair[1].id))
    if recipe.mends.disjoint_splits:
        nodes = [*map(node, amazon), *map(node, google)]
        splits = by_neighbourhood(nodes, [(node(a), node(g)) for a, g in pairs], desk.seed, "PM", recipe.shares)
    else:
        splits = dict.fromkeys(map(node, (*amazon, *google)), "all")
    draw = negatives.hard if recipe.hard else negatives.across
    for split in ("test", "val", "train") if recipe.mends.disjoint_splits else ("all",):
        mine = [pair for pair in pairs if splits[node(pair[0])] == split]
        left = [item for item in amazon if splits[node(item)] == split]
        right = [item for item in google if splits[node(item)] == split]
        for label, group in (("yes", mine), ("no", draw(mine, known, left, right, desk.seed, split))):
            for pair in group:
                one = sample(source, pair, label, recipe)
                pool = split if split != "all" else by_hash(desk.seed, "PM", one.id, recipe.shares)
                desk.offer(pool, one, order(desk.seed, "PM", one.input), label)


def _paper(
    desk: Desk, source: str, pairs: list[Pair], known: set[tuple[str, str]], amazon: list[CatalogueItem],
    google: list[CatalogueItem],
) -> None:  # fmt: skip
    picks = Picks(desk, "PM")
    labelled = [("yes", pair) for pair in pairs]
    labelled += [("no", pair) for pair in negatives.paper_walk(len(pairs), known, amazon, google, desk.seed)]
    for place, (label, pair) in enumerate(labelled):
        desk.offer("all", sample(source, pair, label, desk.recipe), place, label)
    for pool, indices in split_three(len(labelled), desk.seed).items():
        picks.put(pool, indices.tolist())


def describe(item: CatalogueItem, recipe: Recipe) -> dict[str, object]:
    """A catalogue entry as the input shows it."""
    mends = recipe.mends
    tidy = cleaning.clean if mends.clean_text else str
    said = (item.title, item.description, item.manufacturer, item.price)
    title, description, manufacturer, price = (tidy(text) if text else text for text in said)
    shown: Any = _cut(description, recipe) if description else None
    if not mends.json_text:
        shown = float("nan") if shown is None else shown
        manufacturer, price = manufacturer or "nan", price or "nan"
    return {"title": title, "description": shown, "manufacturer": manufacturer or None, "price": price or None}


def _is_cut(description: str | None, recipe: Recipe) -> bool:
    text = cleaning.clean(description or "") if recipe.mends.clean_text else description or ""
    return _cut(text, recipe) != text


def _cut(description: str, recipe: Recipe) -> str:
    by_space = recipe.mends.words_by_space
    return (cleaning.first_words if by_space else cleaning.paper_first_words)(description, recipe.description_words)


def sample(source: str, pair: Pair, label: str, recipe: Recipe) -> Sample:
    """One pair as a sample."""
    left, right = pair
    given = {"product 1": describe(left, recipe), "product 2": describe(right, recipe)}
    entities = tuple(f"entry:{mark(node(item)):016x}" for item in pair)
    return Sample(task="PM", input=json.dumps(given), output=label, entities=entities, source=source)


def _distinct(desk: Desk, pairs: Iterable[Pair]) -> list[Pair]:
    seen: set[tuple[str, ...]] = set()
    kept = []
    for a, g in pairs:
        both = tuple(sorted(str((i.title, i.description, i.manufacturer, i.price)) for i in (a, g)))
        if both in seen:
            desk.drop("pair that reads like another")
        else:
            seen.add(both)
            kept.append((a, g))
    return kept


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """Few enough entries to be held, then all pairs at once."""
    last = Stage("picks", "once", build, offers=("PM",))
    return (Stage("want", "once", want), Stage("keep", "each", keep), last)


FAMILY = Family(
    name="PM", tasks=("PM",), takes=(CatalogueItem, Match), scatter=scatter,
    tables={"items": ITEMS, "kept": ITEMS, "matches": MATCHES}, stages=stages, paper_stream="all",
)  # fmt: skip
