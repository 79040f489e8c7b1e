"""PM, product matching (spec B.2): pairs of an Amazon and a Google catalogue entry, as many matches as not.

`paper`: random cross-catalogue negatives, pairs split at random, NaN written as the authors' code writes it. `sound`:
whole connected components go to a split first, then negatives are drawn inside it, so no product is in two splits.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import rank, rng
from ecellm.ecinstruct.samples import Pools, Recipe, Sample, Samples, Sourced, finish, labels, of_type
from ecellm.ecinstruct.splits import by_hash, by_neighbourhood
from ecellm.sources.records import CatalogueItem, Match

COMMON = 200
"""A title word in more entries than this finds no hard negatives."""
Pair = tuple[CatalogueItem, CatalogueItem]


def build(task: str, records: list[Sourced], recipe: Recipe) -> Samples:
    """Samples of CatalogueItem and Match records."""
    items = [item for _, item in of_type(records, CatalogueItem)]
    amazon = {item.id: item for item in items if item.catalogue == "amazon"}
    google = {item.id: item for item in items if item.catalogue == "google"}
    pools, source = Pools(), labels(records)
    matches = sorted({(match.amazon, match.google) for _, match in of_type(records, Match)})
    known = [(a, g) for a, g in matches if a in amazon and g in google]
    pools.dropped["match without both entries"] += len(matches) - len(known)
    pairs = _distinct([(amazon[a], google[g]) for a, g in known], pools)
    if not recipe.sound:
        negatives = _random_pairs(pairs, set(known), list(amazon.values()), list(google.values()), recipe, "all")
        for label, group in (("yes", pairs), ("no", negatives)):
            for pair in group:
                one = _sample(task, source, pair, label, recipe)
                pools.add(by_hash(recipe.seed, "PM", one.id, recipe.shares), one)
        return finish(task, pools, recipe)
    nodes = [*map(_node, amazon.values()), *map(_node, google.values())]
    splits = by_neighbourhood(nodes, [(_node(a), _node(g)) for a, g in pairs], recipe.seed, "PM", recipe.shares)
    for split in ("test", "val", "train"):
        mine = [pair for pair in pairs if splits[_node(pair[0])] == split]
        left = [item for item in amazon.values() if splits[_node(item)] == split]
        right = [item for item in google.values() if splits[_node(item)] == split]
        draw = _hard_pairs if recipe.hard else _random_pairs
        for label, group in (("yes", mine), ("no", draw(mine, set(known), left, right, recipe, split))):
            for pair in group:
                pools.add(split, _sample(task, source, pair, label, recipe))
    return finish(task, pools, recipe)


def describe(item: CatalogueItem, recipe: Recipe) -> dict[str, object]:
    """A catalogue entry as the input shows it."""
    if recipe.sound:
        said = (item.description, item.manufacturer, item.price)
        description, manufacturer, price = (cleaning.clean(text) if text else None for text in said)
        cut = cleaning.first_words(description, recipe.description_words) if description else None
        return {"title": cleaning.clean(item.title), "description": cut, "manufacturer": manufacturer, "price": price}
    words = recipe.description_words
    text = float("nan") if item.description is None else cleaning.paper_first_words(item.description, words)
    return {"title": item.title, "description": text, "manufacturer": item.manufacturer or "nan",
            "price": item.price or "nan"}  # fmt: skip


def _sample(task: str, source: str, pair: Pair, label: str, recipe: Recipe) -> Sample:
    left, right = pair
    given = {"product 1": describe(left, recipe), "product 2": describe(right, recipe)}
    return Sample(task=task, input=json.dumps(given), output=label, entities=(_node(left), _node(right)), source=source)


def _node(item: CatalogueItem) -> str:
    """Entries of one catalogue that read the same are one product."""
    return f"{item.catalogue}:{cleaning.key(item.title)}|{cleaning.key(item.manufacturer or '')}|{item.price or ''}"


def _distinct(pairs: Iterable[Pair], pools: Pools) -> list[Pair]:
    seen: set[tuple[str, ...]] = set()
    kept = []
    for a, g in pairs:
        both = tuple(sorted(str((i.title, i.description, i.manufacturer, i.price)) for i in (a, g)))
        if both in seen:
            pools.dropped["pair that reads like another"] += 1
        else:
            seen.add(both)
            kept.append((a, g))
    return kept


def _random_pairs(
    pairs: list[Pair], known: set[tuple[str, str]], left: list[CatalogueItem], right: list[CatalogueItem],
    recipe: Recipe, split: str,
) -> list[Pair]:  # fmt: skip
    """As many pairs that do not match as `pairs`, drawn across the catalogues."""
    same, chance = _related(pairs), rng(recipe.seed, "PM", split, "negatives")
    left, right = sorted(left, key=lambda i: i.id), sorted(right, key=lambda i: i.id)
    drawn: dict[tuple[str, str], Pair] = {}
    for _ in range(20 * len(pairs)):
        if len(drawn) == len(pairs) or not left or not right:
            break
        a, g = chance.choice(left), chance.choice(right)
        if (a.id, g.id) not in known and not same(a, g):
            drawn.setdefault((a.id, g.id), (a, g))
    return list(drawn.values())


def _hard_pairs(
    pairs: list[Pair], known: set[tuple[str, str]], left: list[CatalogueItem], right: list[CatalogueItem],
    recipe: Recipe, split: str,
) -> list[Pair]:  # fmt: skip
    """For each matched Amazon entry, the Google entry of another product that shares most title words."""
    same = _related(pairs)
    words = {item.id: frozenset(cleaning.key(item.title).split()) for item in right}
    holders: dict[str, list[CatalogueItem]] = defaultdict(list)
    for item in sorted(right, key=lambda i: i.id):
        for word in sorted(words[item.id]):
            holders[word].append(item)
    drawn: dict[tuple[str, str], Pair] = {}
    for a, _ in sorted(pairs, key=lambda pair: (pair[0].id, pair[1].id)):
        mine = frozenset(cleaning.key(a.title).split())
        shared = Counter(g.id for word in sorted(mine) if len(holders[word]) <= COMMON for g in holders[word])
        near = {g.id: g for word in mine if len(holders[word]) <= COMMON for g in holders[word]}
        free = [g for g in near.values()
                if (a.id, g.id) not in known and (a.id, g.id) not in drawn and not same(a, g)]  # fmt: skip
        if free:
            best = max(free, key=lambda g: (shared[g.id] / len(mine | words[g.id]), rank(recipe.seed, a.id, g.id)))
            drawn[a.id, best.id] = (a, best)
    short = len(pairs) - len(drawn)
    others = _random_pairs(pairs[:short], known | set(drawn), left, right, recipe, split) if short else []
    return [*drawn.values(), *others]


def _related(pairs: Iterable[Pair]) -> Callable[[CatalogueItem, CatalogueItem], bool]:
    """Whether two entries are matched, or read like two that are."""
    partners = {(_node(a), _node(g)) for a, g in pairs}
    return lambda a, g: (_node(a), _node(g)) in partners
