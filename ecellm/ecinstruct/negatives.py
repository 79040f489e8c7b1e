"""Pairs that do not match, for PM: drawn across the catalogues, hard, or by the authors' walk. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

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
    """Spec B.2: Amazon rows in shuffled order; the partner is the Google row at the shuffled position that is the
    Amazon row's own number. Kept where it is no known pair, until there are `size`."""
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
    same, chance = _Same(pairs), rng(seed, "PM", split, "negatives")
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
    same = _Same(pairs)
    words = {item.id: frozenset(cleaning.key(item.title).split()) for item in right}
    by_id = {item.id: item for item in right}
    holders: dict[str, list[str]] = defaultdict(list)
    for number in sorted(by_id):
        for word in words[number]:
            holders[word].append(number)
    drawn: dict[tuple[str, str], Pair] = {}
    for a, _ in sorted(pairs, key=lambda pair: (pair[0].id, pair[1].id)):
        mine = frozenset(cleaning.key(a.title).split())
        shared = Counter(number for word in mine if len(holders.get(word, ())) <= COMMON
                         for number in holders.get(word, ()))  # fmt: skip
        likeness: dict[float, list[str]] = defaultdict(list)
        for number, n in shared.items():
            likeness[n / len(mine | words[number])].append(number)
        best = _first_free(a, likeness, by_id, known, same, seed)
        if best is not None and (a.id, best.id) not in drawn:
            drawn[a.id, best.id] = (a, best)
    short = len(pairs) - len(drawn)
    others = across(pairs[:short], known | set(drawn), left, right, seed, split) if short else []
    return [*drawn.values(), *(pair for pair in others if not same(*pair))]


def _first_free(
    a: CatalogueItem, likeness: dict[float, list[str]], by_id: dict[str, CatalogueItem], known: Known, same: _Same,
    seed: int,
) -> CatalogueItem | None:  # fmt: skip
    """The most alike entry that is another product; of equals the first in drawing order."""
    for like in sorted(likeness, reverse=True):
        for number in sorted(likeness[like], key=lambda number: rank(seed, a.id, number)):
            if (a.id, number) not in known and not same(a, by_id[number]):
                return by_id[number]
    return None


class _Same:
    """Whether two entries are matched, or read like two that are."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._nodes: dict[tuple[str, str], str] = {}
        self._partners = {(self._node(a), self._node(g)) for a, g in pairs}

    def __call__(self, a: CatalogueItem, g: CatalogueItem) -> bool:
        return (self._node(a), self._node(g)) in self._partners

    def _node(self, item: CatalogueItem) -> str:
        name = (item.catalogue, item.id)
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = node(item)
        return found
