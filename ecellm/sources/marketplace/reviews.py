"""Made-up marketplace: reviews, ratings and product metadata in the form of the Amazon Review Data (2018)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ecellm.sources.marketplace.words import CHATTER, FOREIGN, GROUPS, NAMES, STAR_SHARES, STARS
from ecellm.sources.marketplace.world import Item, World, complement, description, features, title

START = 1_500_000_000
_DAY = 86_400


def make_metadata(world: World, group: str, noise: float, seed: int, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """One record for each of the products `start` to `stop` of a category: links to bought (complementary type),
    viewed (same type) and similar (same brand) ones."""
    draw = random.Random(f"metadata {seed} {group} {start}")
    for item in world.by_group[group][start:stop]:
        peers, mates = world.by_type[item.type], world.by_type[complement(item.type)]
        bought = [draw.choice(mates) for _ in range(draw.choice((1, 2, 2, 3)))]
        viewed = [p for p in draw.choices(peers, k=3) if p.brand != item.brand]
        twins = [p for p in draw.choices(peers, k=12) if p.brand == item.brand and p.id != item.id][:1]
        if draw.random() < noise:  # a link that means nothing
            bought.append(draw.choice(world.by_group[group]))
        name = title(item, draw)
        if draw.random() < noise / 2:
            name = f"{name} &amp; <b>gift</b>"
        record: dict[str, Any] = {
            "category": [group.replace("_", " ").replace(" and ", " & "), item.type],
            "description": [description(item, draw)],
            "title": name,
            "also_buy": [p.id for p in bought if p.id != item.id],
            "also_view": [p.id for p in viewed],
            "brand": item.brand,
            "feature": features(item, draw),
            "rank": f"{draw.randrange(1, 10**6)} in {group}",
            "price": f"${item.price:.2f}",
            "asin": item.id,
            "similar_item": "".join(f'<a href="/dp/x?asin={p.id}&ref=sim">{p.type}</a>' for p in twins),
        }
        if draw.random() < noise / 3:
            del record["brand"]
        yield record


def make_reviews(
    world: World, users: int, noise: float, seed: int, start: int, stop: int
) -> dict[str, list[dict[str, Any]]]:
    """Reviews by category, of the users `start` to `stop` of `users`. A user has a taste (a type and its complement, a
    brand); most purchases follow it.

    Products that are bought are few enough that most keep five interactions, as 5-core filtering asks.
    """
    draw = random.Random(f"reviews {seed} {start}")
    groups = [group for group in GROUPS if group != "Cell_Phones_and_Accessories"]
    popular = {kind: items[: max(3, users // 320)] for kind, items in world.by_type.items()}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(start, stop):
        group = groups[number % len(groups)]
        taste = draw.choice(GROUPS[group])
        liked = [*popular[taste], *popular[complement(taste)]]
        any_item = [item for kind in GROUPS[group] for item in popular[kind]]
        time = START + _DAY * draw.randrange(0, 900)
        for item in _basket(liked, any_item, draw):
            time += _DAY * draw.randrange(1, 40)
            record = _review(item, f"MUUSER{number:08d}", time, noise, draw)
            found[group].append(record)
            if draw.random() < noise / 5:
                found[group].append(dict(record))
    for records in found.values():
        draw.shuffle(records)
    return found


def _basket(liked: list[Item], others: list[Item], draw: random.Random) -> list[Item]:
    wanted, basket = draw.choice((5, 6, 6, 7, 8)), []
    for _ in range(60):
        item = draw.choice(liked if draw.random() < 0.8 else others)
        if item not in basket:
            basket.append(item)
        if len(basket) == wanted:
            break
    return basket


def _review(item: Item, user: str, time: int, noise: float, draw: random.Random) -> dict[str, Any]:
    said = draw.choices(list(STAR_SHARES), list(STAR_SHARES.values()))[0]
    given = said
    if draw.random() < noise:  # a star more or less than the words say
        given = min(5, max(1, said + draw.choice((-1, 1))))
    chatter = [text.format(type=item.type, **_facts(item)) for text in draw.sample(CHATTER, 2)]
    opinions = draw.sample(STARS[said], 1 if said in (3, 4) else draw.choice((1, 2)))
    if said in (2, 4) and draw.random() < 0.3:  # a mixed review
        opinions.append(draw.choice(STARS[said + draw.choice((-1, 1))]))
    sentences = [*chatter, *opinions]
    draw.shuffle(sentences)
    text = ". ".join(sentences) + "."
    if draw.random() < noise / 4:
        text = f"{draw.choice(FOREIGN)} {draw.choice(FOREIGN)}."
    return {
        "overall": float(given),
        "verified": draw.random() < 0.9,
        "reviewTime": "01 1, 2018",
        "reviewerID": user,
        "asin": item.id,
        "style": {"Color:": " " + item.values["color"]},
        "reviewerName": draw.choice(NAMES),
        "reviewText": text if draw.random() > noise / 5 else "good",
        "summary": opinions[0],
        "unixReviewTime": time,
    }


def _facts(item: Item) -> dict[str, str]:
    return {"brand": item.brand, "color": item.values["color"]}
