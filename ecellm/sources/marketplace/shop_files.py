"""MADE UP: Amazon Review 2018 files of the invented shop: metadata, reviews, ratings.

Not the readers' side. One decision to know: what users buy comes from decks (one for each product line and
brand taste) that go round, so every reviewed item has at least five reviews without a count being kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecellm.sources.marketplace import opinions, text
from ecellm.sources.marketplace.draws import generator, pick, rows
from ecellm.sources.marketplace.files import BROKEN_SHARE, cut_short, json_line, text_file
from ecellm.sources.marketplace.words import BRANDS_PER_LINE, GROUPS, LINES, REVIEWERS
from ecellm.sources.marketplace.world import Catalogue, Item, asin, bought_with

SHOP_GROUPS = (0, 1, 2, 3)
"""Groups with reviews and metadata: the paper's three IND categories and its OOD one."""
LOYALTY = 0.68
"""Share of a user's purchases that come from their own line and brand."""
LENGTHS = (5, 5, 6, 6, 7, 7, 8, 8)
"""Purchases of a user."""
_PER_ITEM = 7
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Purchase:
    """One rating of an item; `day` counts from the shop's first."""

    user: int
    item: int
    day: int
    uniform: float


class _Deck:
    """Items dealt one by one, shuffled again after each round, so that counts differ by one at most."""

    def __init__(self, seed: int, group: int, persona: int, items: list[int]) -> None:
        self._draw = generator(seed, "deck", group, persona)
        self._items, self._place = items, len(items)

    def deal(self) -> int:
        if self._place == len(self._items):
            self._items = [self._items[i] for i in self._draw.permutation(len(self._items)).tolist()]
            self._place = 0
        self._place += 1
        return self._items[self._place - 1]


def purchases(catalogue: Catalogue, seed: int, group: int, users: int) -> Iterator[Purchase]:
    """Every purchase of a group's `users` users, user by user in time order."""
    lines = [number for number, line in enumerate(LINES) if line.group == group]
    personas = min(len(lines) * BRANDS_PER_LINE, max(1, users // 12))
    demand = users * sum(LENGTHS) / len(LENGTHS) / personas
    decks = []
    for persona in range(personas):
        numbers = catalogue.of_line_and_brand(lines[persona % len(lines)], persona // len(lines))
        order = generator(seed, "popular", group, persona).permutation(len(numbers))
        kept = numbers[order[: max(1, int(demand / _PER_ITEM))]].tolist()
        decks.append(_Deck(seed, group, persona, kept))
    draw = generator(seed, "purchases", group)
    for user, u in enumerate(rows(draw, users, 2 + 4 * max(LENGTHS))):
        day = int(u[0] * 1200)
        seen: set[int] = set()
        for place in range(pick(LENGTHS, u[1])):
            loyal, which, gap, uniform = u[2 + 4 * place : 6 + 4 * place]
            deck = decks[user % personas] if loyal < LOYALTY else pick(decks, which)
            item = deck.deal()
            if item in seen:
                item = deck.deal()
            seen.add(item)
            day += 1 + int(gap * 40)
            yield Purchase(user * len(SHOP_GROUPS) + group, item, day, uniform)


def write_reviews(catalogue: Catalogue, folder: Path, seed: int, group: int, users: int, noise: float) -> None:
    """`{Category}.json.gz` and `{Category}.csv` of one group, from the same purchases."""
    name = GROUPS[group]
    start = 1_388_534_400
    draw = generator(seed, "reviews", group)
    tape = rows(draw, users * max(LENGTHS), 20)
    ratings_path = folder / "amazon_ratings" / f"{name}.csv"
    with text_file(folder / "amazon_reviews" / f"{name}.json.gz") as out, text_file(ratings_path) as ratings:
        for purchase in purchases(catalogue, seed, group, users):
            u = next(tape)
            felt = opinions.stars(u[10])
            given = opinions.neighbour(felt, u[12]) if u[11] < opinions.MISJUDGED else felt
            seconds = start + purchase.day * _DAY
            item = catalogue.item(purchase.item)
            record = _review(item, reviewer(purchase.user), given, felt, seconds, u)
            if u[13] < noise:
                _spoil_review(record, u[14], u[15])
            line = json_line(record)
            out.write(line)
            if u[16] < noise / 4:
                out.write(line)
            if u[17] < noise * BROKEN_SHARE:
                out.write(cut_short(line))
            ratings.write(f"{record['asin']},{record['reviewerID']},{given}.0,{seconds}\n")
            if u[18] < noise * BROKEN_SHARE:
                ratings.write(f"{record['asin']},{given}.0\n")


def reviewer(user: int) -> str:
    """An id that says that nobody is behind it."""
    return f"MUR{(user * 7_919 + 104_729) % 10_000_000_000:010d}"


def _review(item: Item, user: str, given: int, felt: int, seconds: int, u: list[float]) -> dict[str, object]:
    day = time.gmtime(seconds)
    record: dict[str, object] = {
        "overall": float(given),
        "verified": u[9] < 0.9,
        "reviewTime": f"{day.tm_mon:02d} {day.tm_mday}, {day.tm_year}",
        "reviewerID": user,
        "asin": asin(item.number),
        "style": {"Color:": f" {item.value(0).capitalize()}"},
        "reviewerName": pick(REVIEWERS, u[15]),
        "reviewText": opinions.review(item, felt, u),
        "summary": opinions.summary(felt, u[14]),
        "unixReviewTime": seconds,
    }
    if u[19] < 0.5:
        del record["style"]
    return record


def _spoil_review(record: dict[str, object], kind: float, uniform: float) -> None:
    if kind < 0.25:
        del record["reviewText"]
    elif kind < 0.55:
        record["reviewText"] = pick(opinions.FOREIGN, uniform)
    elif kind < 0.75:
        record["reviewText"] = pick(opinions.SHORT, uniform)
    else:
        record["reviewText"] = str(record["reviewText"]).replace(". ", ".<br /><br />") + " &#34;"


def write_metadata(catalogue: Catalogue, folder: Path, seed: int, group: int, noise: float) -> None:
    """`meta_{Category}.json.gz` of one group, in an order that says nothing."""
    numbers = catalogue.of_group(group)
    draw = generator(seed, "metadata", group)
    order = draw.permutation(len(numbers)) + numbers.start
    tape = rows(draw, len(order), 32)
    with text_file(folder / "amazon_metadata" / f"meta_{GROUPS[group]}.json.gz") as out:
        for number in order:
            u = next(tape)
            record = _metadata(catalogue, catalogue.item(int(number)), group, noise, u)
            line = json_line(record)
            out.write(line)
            if u[30] < noise * BROKEN_SHARE:
                out.write(cut_short(line))


def _metadata(catalogue: Catalogue, item: Item, group: int, noise: float, u: list[float]) -> dict[str, object]:
    title, about, brand = text.title(item), [text.description(item, u[20])], item.brand
    fault = u[31] / noise if u[31] < noise else 1.0
    if fault < 0.2:
        title = text.foreign_title(item)
    elif fault < 0.5:
        title = text.marked_up(title)
    elif fault < 0.6:
        title = ""
    elif fault < 0.8:
        brand = ""
    elif fault < 1.0:
        about = []
    buy, view, similar = links(catalogue, item, u)
    name = GROUPS[group].replace("_", " ").replace("and", "&amp;")
    return {
        "category": [part.replace("&", "&amp;") for part in text.category(item)],
        "tech1": "", "description": about, "fit": "", "title": title,
        "also_buy": [asin(number) for number in buy],
        "tech2": "", "brand": brand, "feature": text.features(item, u[21]),
        "rank": [f">#{1 + int(u[22] * 900_000):,} in {name} (See Top 100 in {name})"],
        "also_view": [asin(number) for number in view],
        "details": {"Shipping Weight:": f"{1 + int(u[23] * 9)} pounds", "ASIN: ": asin(item.number)},
        "main_cat": name, "similar_item": _similar_html(similar),
        "date": f"{pick(('May', 'June', 'August'), u[24])} {1 + int(u[25] * 28)}, 2013",
        "price": text.price(item) if u[26] < 0.8 else "", "asin": asin(item.number),
        "imageURL": [], "imageURLHighRes": [],
    }  # fmt: skip


def links(catalogue: Catalogue, item: Item, u: list[float]) -> tuple[list[int], list[int], list[int]]:
    """also_buy, also_view, similar_item: a complement, another brand of the type, the family. A few are wrong."""
    buy = [pick(catalogue.of_type(bought_with(item.type, u[place])), u[place + 1]) for place in (0, 2)]
    if not item.main and u[4] < 0.7:
        buy = []
    view = []
    for place in (5, 6, 7):
        other = pick(catalogue.of_type(item.type), u[place])
        # Another brand than the item's own: those of the same brand are what `similar_item` shows.
        if catalogue.codes[other, 1] != catalogue.codes[item.number, 1]:
            view.append(other)
    similar = [number for number in catalogue.family(item) if number > item.number][:2]
    if u[8] < 0.04:
        view.append(pick(catalogue.of_group(LINES[item.line].group), u[9]))
    if u[10] < 0.04:
        buy.append(pick(catalogue.of_group(LINES[item.line].group), u[11]))
    return [n for n in buy if n != item.number], view, similar


def _similar_html(numbers: list[int]) -> str:
    if not numbers:
        return ""
    cells = "".join(f'<td><a href="/dp/x?asin={asin(number)}&amp;made=up">made up</a></td>' for number in numbers)
    return f' class="a-bordered a-horizontal-stripes"><tr>{cells}</tr>'


def users_of(group: int, users: int) -> int:
    """Users of one group: they are dealt round the groups."""
    return int(np.count_nonzero(np.arange(group, users, len(SHOP_GROUPS)) >= 0))
