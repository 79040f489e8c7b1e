"""Pairs that do not match, for PM: drawn across the catalogues, hard, or by the authors' walk. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import rank, rng
from ecellm.ecinstruct.replay import permutation
from ecellm.sources.records import CatalogueItem

COMMON = 200
"""A title word in more entries than this finds no hard negatives."""
Pair = tuple[CatalogueItem, CatalogueItem]
Known = set[tuple[str, str]]


def node(item: CatalogueItem) -> str:
    """Entries of one catalogue that read the same are one product."""
    return f"{item.catalogue}:{cleaning.key(item.title)}|{cleaning.key(item.manufacturer or '')}|{item.price or ''}"


def paper_walk(
    size: int, known: Known, amazon: list[CatalogueItem], google: list[CatalogueItem], seed: int
) -> list[Pair]:
    """Spec B.2: Amazon rows in shuffled order; the partner is the Google row at the shuffled position that is the Amazon
    row's own number. Kept where it is no known pair, until there are `size`."""
    shuffled = [google[i] for i in permutation(len(google), seed).tolist()]
    drawn: list[Pair] = []
    for number in permutation(len(amazon), seed).tolist():
        if len(drawn) == size:
            break
        if number < len(shuffled) and (amazon[number].id, shuffled[number].id) not in known:
            drawn.append((amazon[number], shuffled[number]))
    return drawn


def across(
    pairs: list[Pair], known: Known, left: list[CatalogueItem], right: list[CatalogueItem], seed: int, split: str
) -> list[Pair]:
    """As many pairs that do not match as `pairs`, drawn across the catalogues."""
    same, chance = _related(pairs), rng(seed, "PM", split, "negatives")
    left, right = sorted(left, key=lambda i: i.id), sorted(right, key=lambda i: i.id)
    drawn: dict[tuple[str, str], Pair] = {}
    for _ in range(20 * len(pairs)):
        if len(drawn) == len(pairs) or not left or not right:
            break
        a, g = chance.choice(left), chance.choice(right)
        if (a.id, g.id) not in known and not same(a, g):
            drawn.setdefault((a.id, g.id), (a, g))
    return list(drawn.values())


def hard(
    pairs: list[Pair], known: Known, left: list[CatalogueItem], right: list[CatalogueItem], seed: int, split: str
) -> list[Pair]:
    """For each matched Amazon entry, the Google entry of another product that shares most title words."""
    same = _related(pairs)
    words = {item.id: frozenset(cleaning.key(item.title).split()) for item in right}
    holders: dict[str, list[CatalogueItem]] = defaultdict(list)
    for item in sorted(right, key=lambda i: i.id):
        for word in words[item.id]:
            holders[word].append(item)
    drawn: dict[tuple[str, str], Pair] = {}
    for a, _ in sorted(pairs, key=lambda pair: (pair[0].id, pair[1].id)):
        mine = frozenset(cleaning.key(a.title).split())
        rare = [word for word in sorted(mine) if len(holders.get(word, ())) <= COMMON]
        shared = Counter(g.id for word in rare for g in holders.get(word, ()))
        near = {g.id: g for word in rare for g in holders.get(word, ())}
        free = [g for g in near.values()
                if (a.id, g.id) not in known and (a.id, g.id) not in drawn and not same(a, g)]  # fmt: skip
        if free:
            best = max(free, key=lambda g: (shared[g.id] / len(mine | words[g.id]), rank(seed, a.id, g.id)))
            drawn[a.id, best.id] = (a, best)
    short = len(pairs) - len(drawn)
    others = across(pairs[:short], known | set(drawn), left, right, seed, split) if short else []
    return [*drawn.values(), *(pair for pair in others if not same(*pair))]


def _related(pairs: Iterable[Pair]) -> Callable[[CatalogueItem, CatalogueItem], bool]:
    """Whether two entries are matched, or read like two that are."""
    partners = {(node(a), node(g)) for a, g in pairs}
    return lambda a, g: (node(a), node(g)) in partners
