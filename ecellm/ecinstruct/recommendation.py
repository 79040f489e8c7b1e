"""SR, sequential recommendation (spec B.5): a user's purchases in order, 20 candidates, which is next.

`paper`: leave-one-out, so test users are training users; the earliest 50; Python list text. `sound`: users belong to
one split, the latest 50, repeated purchases of one item collapse to the last, no candidate is in the history, JSON.
A training user gives further, shorter histories where there are fewer users than samples asked for.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import rank, rng
from ecellm.ecinstruct.samples import Pools, Recipe, Sample, Samples, Sourced, finish, of_type
from ecellm.ecinstruct.splits import by_hash
from ecellm.records import OOD
from ecellm.sources.records import Product, Review

CORE, LONGEST, CANDIDATES, SHORTEST_HISTORY = 5, 50, 20, 3
LETTERS = "ABCDEFGHIJKLMNOPQRST"
History = list[str]


@dataclass(frozen=True, slots=True)
class _Shelf:
    """What candidates are drawn from: item texts of a domain, their categories and how often they were bought."""

    items: tuple[str, ...]
    group: dict[str, str]
    bought: Counter[str]


def build(task: str, records: list[Sourced], recipe: Recipe) -> Samples:
    """Samples of Review and Product records."""
    pools = Pools()
    bought_in: dict[str, set[str]] = defaultdict(set)
    for source, review in of_type(records, Review):
        bought_in[review.user].add(source)
    reviews = [review for _, review in of_type(records, Review)]
    texts = item_texts([product for _, product in of_type(records, Product)], recipe)
    for domain in sorted({review.domain for review in reviews}):
        mine = [review for review in reviews if review.domain == domain]
        users = histories(mine, texts, recipe, pools)
        group = {texts[review.product]: review.group for review in mine if review.product in texts}
        bought = Counter(item for history in users.values() for item in history)
        shelf = _Shelf(tuple(sorted(bought)), group, bought)
        for user, history in sorted(users.items()):
            _place(task, " + ".join(sorted(bought_in[user])), user, history, shelf, domain, recipe, pools)
    return finish(task, pools, recipe)


def item_texts(products: list[Product], recipe: Recipe) -> dict[str, str]:
    """Product id -> text of title, first two categories and brand; later records fill the gaps of earlier ones.

    `sound` leaves out what the title says already: twenty candidates make a long prompt.
    """
    parts: dict[str, list[str | tuple[str, ...]]] = {}
    for product in products:
        fields = parts.setdefault(product.id, ["", (), ""])
        said: tuple[str | tuple[str, ...], ...] = (product.title, product.category, product.brand)
        for i, value in enumerate(said):
            fields[i] = fields[i] or value
    texts: dict[str, str] = {}
    for product_id, (title, category, brand) in parts.items():
        if not recipe.sound:
            texts[product_id] = " ".join(map(cleaning.paper_item, (title, tuple(category[:2]), brand))).strip()
        elif name := cleaning.clean_title(str(title)):
            more = [cleaning.clean(text).rstrip(".") for text in (*category[:2], str(brand))]
            new = [text for text in dict.fromkeys(more) if text.lower() not in name.lower()]
            joined = ". ".join([name.rstrip("."), *new])
            texts[product_id] = cleaning.first_words(joined, recipe.item_words)
    return {product_id: text for product_id, text in texts.items() if text}


def histories(reviews: list[Review], texts: dict[str, str], recipe: Recipe, pools: Pools) -> dict[str, History]:
    """User -> items bought, oldest first, 5 to 50 of them. Ties in time go by product id."""
    events = {(review.user, review.product, review.rating, review.time) for review in reviews}
    known = {event for event in events if event[1] in texts}
    pools.dropped["purchase of an item without metadata"] += len(events) - len(known)
    core = known if recipe.sound else _core(known)
    bought: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for user, product, _, time in core:
        bought[user].append((time, product))
    users: dict[str, History] = {}
    for user, rows in bought.items():
        items = [texts[product] for _, product in sorted(rows)]
        if recipe.sound:
            items = list(reversed(dict.fromkeys(reversed(items))))
        if len(items) < CORE:
            pools.dropped["user with fewer than 5 items"] += 1
        else:
            users[user] = items[-LONGEST:] if recipe.sound else items[:LONGEST]
    return users


def _core(events: set[tuple[str, str, float, int]]) -> set[tuple[str, str, float, int]]:
    while True:
        users, items = Counter(event[0] for event in events), Counter(event[1] for event in events)
        kept = {event for event in events if users[event[0]] >= CORE and items[event[1]] >= CORE}
        if len(kept) == len(events):
            return kept
        events = kept


def _place(
    task: str, source: str, user: str, items: History, shelf: _Shelf, domain: str, recipe: Recipe, pools: Pools
) -> None:
    def put(pool: str, end: int) -> None:
        one = _sample(task, source, user, items[:end], items[end], items, shelf, recipe)
        if one is None:
            pools.dropped["too few items to choose from"] += 1
        else:
            pools.add(pool, one)

    last = len(items) - 1
    if domain == OOD:
        put("ood", last)
    elif not recipe.sound:
        for pool, end in (("test", last), ("val", last - 1), ("train", last - 2)):
            put(pool, end)
    elif (split := by_hash(recipe.seed, "SR", user, recipe.shares)) == "train":
        for end in range(last, SHORTEST_HISTORY - 1, -1):
            put("train", end)
    else:
        put(split, last)


def _sample(
    task: str, source: str, user: str, history: History, target: str, items: History, shelf: _Shelf, recipe: Recipe
) -> Sample | None:
    chance = rng(recipe.seed, "SR", user, len(history))
    barred = {*history, target} if recipe.sound else {*items[-3:], target}
    negatives = _negatives(target, barred, shelf, chance.random(), recipe)
    if len(negatives) < CANDIDATES - 1:
        return None
    options = [target, *negatives]
    chance.shuffle(options)
    return Sample(
        task=task,
        input=_list_text([f"{ordinal(i)}: {_shown(item, recipe)}" for i, item in enumerate(history, 1)], recipe),
        options=_list_text(
            [f"{letter}: {_shown(item, recipe)}" for letter, item in zip(LETTERS, options, strict=True)], recipe
        ),
        output=LETTERS[options.index(target)],
        entities=("user:" + user,),
        source=source,
    )


def _shown(item: str, recipe: Recipe) -> str:
    return item if recipe.sound else cleaning.paper_first_words(item, recipe.item_words)


def _list_text(parts: list[str], recipe: Recipe) -> str:
    return json.dumps(parts) if recipe.sound else str(parts)


def _negatives(target: str, barred: set[str], shelf: _Shelf, salt: float, recipe: Recipe) -> list[str]:
    """19 items: uniform, or (hard) of the target's category and bought often; others where it has too few."""
    free = [item for item in shelf.items if item not in barred]
    if recipe.hard:
        group = shelf.group.get(target)
        near = [item for item in free if shelf.group.get(item) == group]
        near.sort(key=lambda item: (-shelf.bought[item] * (rank(salt, item) / 2**64), item))
        rest = sorted(set(free) - set(near), key=lambda item: rank(salt, item))
        return [*near, *rest][: CANDIDATES - 1]
    if len(free) < CANDIDATES - 1:
        return []
    return rng(salt, "negatives").sample(free, CANDIDATES - 1)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th` … `11th`, `21st` (spec B.5)."""
    last = 0 if 10 < number % 100 < 20 else number % 10
    return f"{number}{('th', 'st', 'nd', 'rd', *('th',) * 6)[last]}"
