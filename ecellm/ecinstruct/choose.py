"""The last step of a task: from candidates in drawing order to the samples of each pool. The last word on leaks.

Pools are drawn in the order test, ood, val, train; what an earlier one has, by product, user, query or nearly the same
text, a later one does not get. A candidate is looked at only when its turn comes, so quality control costs as much as
there are samples, not as there are raw lines; those whose turn never came count as `more than asked`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import Candidate
from ecellm.ecinstruct.flow.streams import available, in_order, picked
from ecellm.ecinstruct.quality import Alike, foreign, plain, signature
from ecellm.ecinstruct.quotas import places_of
from ecellm.ecinstruct.recipe import NEAR, Recipe
from ecellm.ecinstruct.samples import POOLS

PASSES = 4
"""Times that a stream is walked, where the places of a class that ran short go to others."""
MORE = "more than asked"
QUALITY = ("contradictory labels", "duplicates", "in another split already", "leaks between splits",
           "foreign language", "near-duplicates", "near-duplicates of another split", MORE)  # fmt: skip
"""Steps of this module, in order, as the card names them."""


@dataclass(slots=True)
class Chosen:
    """The samples of a task, and near-duplicate indexes of each pool."""

    pools: dict[str, list[Candidate]] = field(default_factory=lambda: {pool: [] for pool in POOLS})
    alike: dict[str, Alike] = field(default_factory=dict)


def choose(desk: Desk, task: str) -> Chosen:
    """Draw every pool of a task from the candidates that were offered; drops are counted on the desk."""
    return _replayed(desk, task) if desk.recipes[task].paper else _Draw(desk, task).all()


def _replayed(desk: Desk, task: str) -> Chosen:
    """The authors' draw, which an earlier stage worked out."""
    chosen, recipe, stage = Chosen(), desk.recipes[task], desk.family.drawn_from(desk.recipe, task)
    there = available(desk.facts(f"pool/{task}", stage))
    for pool in POOLS:
        table = desk.shared(f"picks.{task}.{pool}", "picks")
        places = table["place"].to_numpy()[: recipe.size(pool)]
        stream = desk.family.stream(recipe, pool)
        found = [_finished(desk, one) for one in picked(desk, task, stream, stage, places)]
        chosen.pools[pool] = [one for one in found if one is not None]
        chosen.alike[pool] = Alike(NEAR)
        for one in chosen.pools[pool]:
            chosen.alike[pool].add(signature(plain(one.input)))
    drawn = sum(map(len, chosen.pools.values()))
    offered = sum(n for of in there.values() for n in of.values())
    desk.drop(MORE, "", offered - drawn - sum(desk.facts(f"left/{task}", "picks").values()), task)
    return chosen


def _finished(desk: Desk, one: Candidate) -> Candidate | None:
    return one if desk.family.render is None else desk.family.render(desk, one)


class _Draw:
    """One task's draw by hash."""

    def __init__(self, desk: Desk, task: str) -> None:
        self.desk, self.task, self.stage = desk, task, desk.family.drawn_from(desk.recipe, task)
        self.recipe: Recipe = desk.recipes[task]
        last = desk.family.last(desk.recipe)
        self.there = available(desk.facts(f"pools/{task}", last) or desk.facts(f"pool/{task}", self.stage))
        self.chosen = Chosen()
        self.seen: dict[str, str] = {}
        self.taken: dict[str, str] = {}

    def all(self) -> Chosen:
        for pool in POOLS:
            self.chosen.alike[pool] = Alike(self.recipe.near or NEAR)
            self._pool(pool)
        return self.chosen

    def _pool(self, pool: str) -> None:
        there, size = self.there.get(pool, {}), self.recipe.size(pool)
        judged: dict[str, int] = dict.fromkeys(there, 0)
        done: set[tuple[int, str]] = set()
        chosen = self.chosen.pools[pool]
        for _ in range(PASSES):
            left = {klass: n - judged[klass] for klass, n in there.items() if n > judged[klass]}
            if len(chosen) >= size or not left:
                break
            before = len(chosen)
            self._walk(pool, places_of(self.recipe, pool, left, self.there, size - before), judged, done)
            if len(chosen) == before:
                break
        chosen.sort(key=lambda one: one.key)
        self.desk.drop(MORE, pool, sum(there.values()) - sum(judged.values()), self.task)

    def _walk(self, pool: str, places: dict[str, int], judged: dict[str, int], done: set[tuple[int, str]]) -> None:
        """Take candidates until every class has its places, or there are no more.

        Of candidates that read the same, those that come when their class has its places were not needed.
        """
        for (key, text), group in groupby(self._stream(pool), key=lambda one: (one.key, one.input)):
            if not any(places.values()):
                return
            members = list(group)
            klass = members[0].klass
            if (key, text) in done or not places.get(klass if klass in places else "", 0):
                continue
            done.add((key, text))
            for one in members:
                judged[one.klass] = judged.get(one.klass, 0) + 1
            for one in self._unlike(members, pool):
                name = one.klass if one.klass in places else ""
                if not places.get(name, 0):
                    self.desk.drop(MORE, pool, 1, self.task)
                    continue
                finished = _finished(self.desk, one)
                reason = self._reason(finished, pool) if finished is not None else "too few items to choose from"
                if reason:
                    self.desk.drop(reason, pool, 1, self.task)
                elif finished is not None:
                    self.chosen.pools[pool].append(finished)
                    places[name] -= 1

    def _stream(self, pool: str) -> Iterator[Candidate]:
        admit = self.desk.family.admit
        for one in in_order(self.desk, self.task, self.desk.family.stream(self.recipe, pool), self.stage):
            if admit is None or admit(self.desk, pool, one):
                yield one

    def _unlike(self, members: list[Candidate], pool: str) -> list[Candidate]:
        """Of candidates that read the same: none where they contradict each other, else one, or all."""
        if len(members) == 1:
            return members
        mends, one_answer = self.recipe.mends, self.desk.family.one_answer.get(self.task, True)
        if one_answer and mends.consistent_labels and len({one.output for one in members}) > 1:
            self.desk.drop("contradictory labels", pool, len(members), self.task)
            return []
        if mends.no_duplicates:
            self.desk.drop("duplicates", pool, len(members) - 1, self.task)
            return members[:1]
        return members

    def _reason(self, one: Candidate, pool: str) -> str:
        """Why a candidate is not taken, or "" with everything noted that later ones are held against."""
        mends, recipe = self.recipe.mends, self.recipe
        name = one.input if one.options is None or desk_fixed(self.task) else one.input + "\x1f" + one.options
        if mends.no_duplicates and name in self.seen:
            return "duplicates" if self.seen[name] == pool else "in another split already"
        if mends.disjoint_splits and any(self._claimed(self.taken.get(entity), pool) for entity in one.entity_list):
            return "leaks between splits"
        text = plain(one.input)
        if recipe.language and foreign(_spoken(self.task, text)):
            return "foreign language"
        sign = signature(text)
        reason = self._near(sign, one, pool) if recipe.near else ""
        if reason:
            return reason
        self.seen[name] = pool
        for entity in one.entity_list:
            self.taken.setdefault(entity, pool)
        self.chosen.alike[pool].add(sign, one.slot + "\x1f" + one.output)
        return ""

    def _near(self, sign: object, one: Candidate, pool: str) -> str:
        alike = self.chosen.alike
        others = [other for other in POOLS[: POOLS.index(pool)] if self._claimed(other, pool)]
        if self.recipe.mends.disjoint_splits and any(alike[other].has(sign) for other in others):
            return "near-duplicates of another split"
        # A user's longer and shorter histories are alike on purpose.
        alone = self.recipe.mends.no_duplicates and self.task != "SR"
        return "near-duplicates" if alone and alike[pool].has(sign, one.slot + "\x1f" + one.output) else ""

    @staticmethod
    def _claimed(owner: str | None, pool: str) -> bool:
        """Whether an entity of `owner` may not be in `pool`: the two tests may share."""
        return owner is not None and owner != pool and {owner, pool} != {"test", "ood"}


def desk_fixed(task: str) -> bool:
    """Whether a task's options are the same in every row, so that the input alone tells samples apart."""
    return task != "SR"


def _spoken(task: str, text: str) -> str:
    """The part of an input that people wrote as a sentence: the question, not the snippets that answer it."""
    return text.partition("\n")[0] if task in ("AP", "AG") else text
