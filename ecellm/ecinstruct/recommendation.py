"""SR, sequential recommendation (spec B.5): a user's purchases in order, 20 candidates, which is next.

`paper`: 5-core for each category, the earliest 50 purchases, leave-one-out (so test users are training users), users in
the order of pandas' draw, Python list text; the authors' pools of items and users came from sets, so ours go in sorted.
`sound`: users belong to one split, the latest 50, repeated purchases of one item collapse to the last, nothing bought
before is a candidate, JSON. Where there are fewer training users than samples asked for, each also gives shorter
histories. Candidates are written out when a sample is drawn: twenty texts for each of millions would be too many.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pyarrow as pa

from ecellm.ecinstruct import cleaning, shelf
from ecellm.ecinstruct.core import keep_core, pick
from ecellm.ecinstruct.draws import mark, order
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import At, Candidate, Family, Stage
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.samples import Sample
from ecellm.ecinstruct.splits import by_hash
from ecellm.sources.records import Product, Review

CORE, LONGEST, SHORTEST_HISTORY = 5, 50, 3
LETTERS = "ABCDEFGHIJKLMNOPQRST"
SPARE, PURCHASES = 4, 8
"""Histories of training users for each sample asked, where a user has about eight purchases."""
DAY = 86_400
BUYS = pa.schema(
    [
        ("product", pa.string()), ("user", pa.string()), ("stars", pa.float32()), ("time", pa.int64()),
        ("domain", pa.string()), ("group", pa.string()), ("source", pa.string()),
    ]
)  # fmt: skip
TEXTS = pa.schema(
    [
        ("product", pa.string()), ("title", pa.string()), ("category", pa.list_(pa.string())), ("brand", pa.string()),
        ("old", pa.bool_()), ("place", pa.uint64()),
    ]
)  # fmt: skip
BOUGHT = pa.schema(
    [
        ("user", pa.string()), ("product", pa.string()), ("text", pa.string()), ("stars", pa.float32()),
        ("time", pa.int64()), ("domain", pa.string()), ("group", pa.string()), ("source", pa.string()),
        ("user_mark", pa.uint64()), ("product_mark", pa.uint64()),
    ]
)  # fmt: skip
Event = tuple[Any, ...]
Bought = tuple[int, str, str]
"""Time, item text and category of one purchase."""


def scatter(desk: Desk, record: Review | Product, at: At) -> None:
    """Purchases and item texts, each to its product's part."""
    if isinstance(record, Product):
        if desk.recipe.mends.clean_text:
            desk.change(cleaning.MARKUP, sum(map(cleaning.marked, (record.title, *record.category[:2], record.brand))))
        desk.emit("texts", mark(record.id), record.id, record.title, record.category, record.brand,
                  record.old, at.place)  # fmt: skip
    elif at.domain == "HELD":
        desk.drop("category held out by another task")
    else:
        desk.emit("buys", mark(record.product), record.product, record.user, record.rating, record.time, at.domain,
                  at.group, at.source)  # fmt: skip


def items(desk: Desk, part: int) -> None:
    """The text of each item to its purchases, which go to their users' parts; the shelf of what may be offered."""
    found: dict[str, list[Event]] = defaultdict(list)
    for row in desk.rows("texts", part):
        found[row[0]].append(row)
    texts = {product: item_text(sorted(rows, key=lambda row: row[4:]), desk.recipe) for product, rows in found.items()}
    cut = sum(_shown(text, desk.recipe) != text for text in texts.values())
    desk.change(f"cut at {desk.recipe.item_words} words", cut)
    if desk.recipe.paper:  # what 2014 alone knows was not looked for, what has no text was
        texts = {product: text for product, text in texts.items() if not all(row[4] for row in found[product])}
    bought: dict[tuple[str, str, str], int] = defaultdict(int)
    if desk.recipe.mends.clean_text:
        texts = {product: _shown(text, desk.recipe) for product, text in texts.items()}
    for product, user, stars, time, domain, group, source in desk.rows("buys", part):
        text = texts.get(product)
        if text is None or (not text and not desk.recipe.paper):
            desk.drop("purchase of an item without metadata")
            continue
        bought[domain, text, group] += 1
        if domain != "OOD":
            desk.tell("days", str(time // DAY))
        desk.emit("bought", mark(user), user, product, text, stars, time, domain, group, source, mark(user),
                  mark(product))  # fmt: skip
    for (domain, text, group), n in sorted(bought.items()):
        desk.emit("shelf", 0, domain, text, group, n)


def item_text(rows: list[Event], recipe: Recipe) -> str:
    """Text of title, first two categories and brand; later records, and those of 2014, fill the gaps of earlier ones.

    With `clean_text` what the title says already is left out: twenty candidates make a long prompt. Not yet cut.
    """
    title = next((row[1] for row in rows if row[1]), "")
    category: list[str] = next((row[2] for row in rows if row[2]), [])[:2]
    brand = next((row[3] for row in rows if row[3]), "")
    if not recipe.mends.clean_text:
        return " ".join(map(cleaning.paper_item, (title, tuple(category), brand))).strip()
    name = cleaning.clean_title(title)
    if not name:
        return ""
    more = [cleaning.clean(text).rstrip(".") for text in (*category, brand)]
    new = [text for text in dict.fromkeys(more) if text.lower() not in name.lower()]
    return ". ".join([name.rstrip("."), *new])


def users(desk: Desk, part: int) -> None:
    """Histories of the users of a part, offered to their pools."""
    recipe = desk.recipe
    of: dict[tuple[str, str], list[Event]] = defaultdict(list)
    core = keep_core(desk) if recipe.paper else None
    for row in desk.rows("bought", part, "items"):
        if core is None or core(row[6], row[8], row[9]):
            of[row[0], row[6] if recipe.paper else row[5]].append(row)
        else:
            desk.drop("outside the 5-core")
    turns = _turns(desk)
    for (user, _), rows in sorted(of.items()):
        group: dict[Event, str] = {}
        for row in rows:
            event = (row[4], row[1], row[3], row[2])
            group[event] = min(row[6], group.get(event, row[6]))
        desk.drop("purchase stated twice", n=len(rows) - len(group))
        history = _history(desk, [(event[0], event[3], group[event]) for event in sorted(group)])
        if len(history) < CORE:
            desk.drop("user with fewer than 5 items")
            continue
        source = " + ".join(sorted({row[7] for row in rows}))
        _offer(desk, user, rows[0][5], history, source, turns)


def _history(desk: Desk, bought: list[Bought]) -> list[Bought]:
    """The purchases that count, oldest first, at most 50. Ties in time went by product id."""
    kept = bought
    if desk.recipe.mends.latest_items:
        last = {one[1]: i for i, one in enumerate(bought)}
        kept = [one for i, one in enumerate(bought) if last[one[1]] == i]
        desk.drop("purchase of an item bought again later", n=len(bought) - len(kept))
    desk.drop("purchase beyond 50 of a user", n=max(0, len(kept) - LONGEST))
    return kept[-LONGEST:] if desk.recipe.mends.latest_items else kept[:LONGEST]


def _turns(desk: Desk) -> int:
    """Histories that a training user gives."""
    bought = sum(desk.facts("days", "items").values())
    return max(1, min(LONGEST, -(-SPARE * PURCHASES * desk.recipe.size("train") // max(1, bought))))


def _offer(desk: Desk, user: str, domain: str, history: list[Bought], source: str, turns: int) -> None:
    recipe, last = desk.recipe, len(history) - 1
    if recipe.paper:
        group = history[last][2]  # a user of each category is a user of its own
        key = mark(f"{group}\x1f{user}")
        of_pool = {"test": last, "val": last - 1, "train": last - 2} if domain != "OOD" else {"ood": last}
        for pool, end in of_pool.items():
            _put(desk, pool, user, domain, history, end, source, key)
        desk.stand("SR", domain, group, key)
        return
    if domain == "OOD":
        _put(desk, "ood", user, domain, history, last, source)
        return
    split = by_hash(desk.seed, "SR", user, recipe.shares)
    ends = [last]
    if split == "train":
        ends = list(range(last, SHORTEST_HISTORY - 1, -1))
    if recipe.mends.time_split:
        ends = [end for end in range(last, SHORTEST_HISTORY - 1, -1) if _period(desk, history[end][0]) == split]
        ends = ends if split == "train" else ends[:1]
        if not ends:
            desk.drop("no purchase within the time of the user's split", split)
    for end in ends[:turns]:
        pool = split
        if not recipe.mends.disjoint_splits:
            pool = by_hash(desk.seed, "SR", f"{user} {end}", recipe.shares)
        _put(desk, pool, user, domain, history, end, source)


def _period(desk: Desk, time: int) -> str:
    """The split whose time a purchase falls into: training ends first, the test comes last."""
    if "period" not in desk.memo:
        days = sorted((int(day), n) for day, n in desk.facts("days", "items").items())
        total, seen = sum(n for _, n in days), 0
        bounds: list[int] = []
        wanted = [1 - desk.recipe.shares["test"] - desk.recipe.shares["val"], 1 - desk.recipe.shares["test"]]
        for day, n in days:
            seen += n
            while len(bounds) < 2 and seen >= wanted[len(bounds)] * total:
                bounds.append(day)
        desk.memo["period"] = bounds or [0, 0]
    first, second = desk.memo["period"]
    day = time // DAY
    return "train" if day <= first else "val" if day <= second else "test"


def _put(
    desk: Desk, pool: str, user: str, domain: str, history: list[Bought], end: int, source: str, key: int | None = None
) -> None:  # fmt: skip
    """A history that waits to be drawn: its items, where it ends and the target's category, without candidates."""
    group = history[end][2]
    waiting = json.dumps([[item for _, item, _ in history], end])
    one = Sample(task="SR", input=waiting, output="", entities=("user:" + user,), source=source,
                 slot=f"{domain}\x1f{group}\x1f{user}")  # fmt: skip
    desk.offer(pool, one, order(desk.seed, "SR", f"{user}\x1f{end}\x1f{group}") if key is None else key)


def render(desk: Desk, one: Candidate) -> Candidate | None:
    """A drawn history with its candidates; None where the shelf has too few items."""
    recipe, (bought, end) = desk.recipe, json.loads(one.input)
    domain, group, user = one.slot.split("\x1f", 2)
    target, history = bought[end], bought[:end]
    barred = {*bought, target} if recipe.mends.bar_history else {*bought[-3:], target}
    options = shelf.options(desk, domain, group, target, barred, f"{user}\x1f{end}")
    if options is None:
        return None
    shown = [f"{ordinal(i)}: {_shown(item, recipe)}" for i, item in enumerate(history, 1)]
    listed = [f"{letter}: {_shown(item, recipe)}" for letter, item in zip(LETTERS, options, strict=True)]
    return one._replace(input=_list_text(shown, recipe), options=_list_text(listed, recipe),
                        output=LETTERS[options.index(target)], slot="")  # fmt: skip


def _shown(item: str, recipe: Recipe) -> str:
    cut = cleaning.first_words if recipe.mends.words_by_space else cleaning.paper_first_words
    return cut(item, recipe.item_words)


def _list_text(parts: list[str], recipe: Recipe) -> str:
    return json.dumps(parts) if recipe.mends.json_text else str(parts)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th` … `11th`, `21st` (spec B.5)."""
    last = 0 if 10 < number % 100 < 20 else number % 10
    return f"{number}{('th', 'st', 'nd', 'rd', *('th',) * 6)[last]}"


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """Texts are joined to purchases, the shelf is put in order, users' histories offered."""
    first = (Stage("items", "each", items), Stage("shelf", "once", shelf.arrange))
    last = Stage("users", "each", users, offers=("SR",))
    return (*first, last, Stage("picks", "once", pick)) if recipe.paper else (*first, last)


FAMILY = Family(
    name="SR", tasks=("SR",), takes=(Review, Product), scatter=scatter,
    tables={"buys": BUYS, "texts": TEXTS, "bought": BOUGHT, "shelf": shelf.SHELF}, stages=stages,
    streams={}, render=render,
)  # fmt: skip
