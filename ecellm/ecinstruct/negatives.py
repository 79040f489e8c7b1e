"""Pairs that do not match, for PM: drawn across the catalogues, hard, or by the authors' walk. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

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
    same, titles = _Same(pairs), _Titles(right)
    drawn: dict[tuple[str, str], Pair] = {}
    for a, _ in sorted(pairs, key=lambda pair: (pair[0].id, pair[1].id)):
        for best in titles.most_alike(a, seed):
            if (a.id, best.id) not in known and not same(a, best):
                drawn.setdefault((a.id, best.id), (a, best))
                break
    short = len(pairs) - len(drawn)
    others = across(pairs[:short], known | set(drawn), left, right, seed, split) if short else []
    return [*drawn.values(), *(pair for pair in others if not same(*pair))]


class _Titles:
    """The title words of a catalogue, as an inverted index."""

    def __init__(self, items: Iterable[CatalogueItem]) -> None:
        by_id = {item.id: item for item in items}
        self._items = [by_id[number] for number in sorted(by_id)]
        words = [_words(item) for item in self._items]
        self._sizes = np.array([len(of) for of in words], np.int64)
        holders: dict[str, list[int]] = defaultdict(list)
        for place, of in enumerate(words):
            for word in of:
                holders[word].append(place)
        self._holders = {word: np.array(places, np.int64) for word, places in holders.items()}

    def most_alike(self, item: CatalogueItem, seed: int) -> Iterator[CatalogueItem]:
        """Entries by the share of words that both titles have, the most alike first; of equals, by a draw.

        An entry that shares none but common words is not named.
        """
        mine = _words(item)
        found = [self._holders[word] for word in mine if word in self._holders]
        rare = [places for places in found if len(places) <= COMMON]
        if not rare:
            return
        shared, both = self._count(rare), self._count(found)
        likeness = shared / (len(mine) + self._sizes - both)
        for like in np.unique(likeness[shared > 0])[::-1].tolist():
            equal = [self._items[place] for place in np.flatnonzero(likeness == like).tolist()]
            yield from sorted(equal, key=lambda one: rank(seed, item.id, one.id))

    def _count(self, places: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        return np.bincount(np.concatenate(places), minlength=len(self._items))


def _words(item: CatalogueItem) -> frozenset[str]:
    return frozenset(cleaning.key(item.title).split())


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
