"""Samples: what a builder makes, before any instruction is chosen; and what every task does with its pools at the end.

A builder is a pure function `build(task, records, recipe) -> Samples`. Nothing here reads a file. In the `sound` recipe
`finish` is the last word on leaks: whatever a builder did, no entity of a test sample is left in val or train.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ecellm.config.schema import Build, Sizes, TaskId
from ecellm.ecinstruct.draws import rank
from ecellm.ecinstruct.splits import SHARES, Shares, shares_of
from ecellm.sources.records import SourceRecord

_T = TypeVar("_T")
POOLS = ("test", "ood", "val", "train")
"""In order of claim: an entity belongs to the first pool that has it (test and ood may share)."""
CLASSIFIED: frozenset[str] = frozenset({"PRP", "PM", "SA", "MPC", "PSI", "AP"})
"""Tasks whose answer is one of a few classes."""
Sourced = tuple[str, SourceRecord]
"""(source label, record)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to build: the parts of the run file that a builder may look at."""

    seed: int = 1
    sound: bool = True
    hard: bool = False
    max_words: int = 400
    item_words: int = 25
    description_words: int = 50
    balance: float = 0.0
    shares: Shares = field(default_factory=lambda: SHARES)
    sizes: Sizes = field(default_factory=Sizes)

    @classmethod
    def of(cls, build: Build, task: TaskId, seed: int) -> Recipe:
        """The recipe of one task."""
        return cls(seed=seed, sound=build.recipe == "sound", hard=build.negatives == "hard",
                   max_words=build.max_words, item_words=build.item_words,
                   description_words=build.description_words,
                   balance=build.task_class_balance.get(task, build.class_balance) if task in CLASSIFIED else 0.0,
                   shares=shares_of(build.test_share, build.val_share),
                   sizes=build.task_sizes.get(task, build.sizes))  # fmt: skip

    def size(self, pool: str) -> int:
        """Samples asked for in a pool."""
        return int(getattr(self.sizes, pool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One input with its gold answer. `entities` are the things that must not be in two splits."""

    task: str
    input: str
    output: str
    options: str | None = None
    option_labels: str | None = None
    entities: tuple[str, ...] = ()
    source: str = ""

    @property
    def id(self) -> str:
        """16 hex digits of the content's sha256."""
        return sample_id(self.task, self.input, self.options, self.output)


def sample_id(task: str, input: str, options: str | None, output: str) -> str:
    """The id of a sample of task id `task`: the same in every setting."""
    text = "\x1f".join((task, input, options or "", output))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(slots=True)
class Pools:
    """Candidates for each pool while a builder works, and what it left out, by reason."""

    of: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, pool: str, sample: Sample) -> None:
        """One candidate."""
        self.of[pool].append(sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A task's samples, in a fixed order that knows nothing of the order of the raw lines."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    ood: tuple[Sample, ...]
    dropped: dict[str, int]

    def pool(self, name: str) -> tuple[Sample, ...]:
        """One of train, val, test, ood."""
        found: tuple[Sample, ...] = getattr(self, name)
        return found


def finish(task: str, pools: Pools, recipe: Recipe, *, one_answer: bool = True) -> Samples:
    """Duplicates, contradictions and leaks out (`sound`), then as many as asked, chosen by hash.

    `one_answer`: equal inputs must have equal answers (not so for free text).
    """
    dropped = Counter(pools.dropped)
    kept = {name: list(pools.of.get(name, ())) for name in POOLS}
    if recipe.sound:
        if one_answer:
            kept = _consistent(kept, dropped)
        kept = _disjoint(kept, dropped)
    chosen: dict[str, tuple[Sample, ...]] = {}
    for name in POOLS:
        ordered = sorted(kept[name], key=lambda sample: (rank(recipe.seed, task, name, sample.id), sample.source))
        balance = recipe.balance if recipe.sound and name == "train" else 0.0
        chosen[name] = tuple(_choose(ordered, recipe.size(name), balance))
        dropped["more than asked"] += len(ordered) - len(chosen[name])
    return Samples(**chosen, dropped={reason: count for reason, count in sorted(dropped.items()) if count})


def _choose(ordered: list[Sample], size: int, balance: float) -> list[Sample]:
    """The first `size` samples; with `balance` above 0 the rarer answers get more places than their share.

    The share of an answer that n samples have is in proportion to n ** (1 - balance): 0 as found, 1 the same for
    each. What an answer cannot fill goes to the others, so nothing is lost by asking for many.
    """
    if not balance or len(ordered) <= size:
        return ordered[:size]
    there = Counter(sample.output for sample in ordered)
    places = dict.fromkeys(there, 0.0)
    open_, left = set(there), float(size)
    while left > 1e-9 and open_:
        weight = {answer: there[answer] ** (1 - balance) for answer in sorted(open_)}
        whole, given = sum(weight.values()), left
        for answer, part in weight.items():
            share = min(given * part / whole, there[answer] - places[answer])
            places[answer] += share
            left -= share
        open_ = {answer for answer in open_ if places[answer] < there[answer] - 1e-9}
    quota = _whole_places(places, size)
    chosen = []
    for sample in ordered:
        if quota[sample.output]:
            quota[sample.output] -= 1
            chosen.append(sample)
    return chosen


def _whole_places(places: dict[str, float], size: int) -> dict[str, int]:
    """Places in whole numbers that sum to `size`, by largest remainder."""
    quota = {answer: int(share + 1e-6) for answer, share in places.items()}
    rest = sorted(places, key=lambda answer: (quota[answer] - places[answer], answer))
    for answer in rest[: size - sum(quota.values())]:
        quota[answer] += 1
    return quota


def _consistent(kept: dict[str, list[Sample]], dropped: Counter[str]) -> dict[str, list[Sample]]:
    answers: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for sample in (sample for pool in kept.values() for sample in pool):
        answers[sample.input, sample.options].add(sample.output)
    clean = {
        name: [sample for sample in pool if len(answers[sample.input, sample.options]) == 1]
        for name, pool in kept.items()
    }
    dropped["contradictory labels"] += sum(len(kept[name]) - len(clean[name]) for name in kept)
    return clean


def _disjoint(kept: dict[str, list[Sample]], dropped: Counter[str]) -> dict[str, list[Sample]]:
    seen: set[str] = set()
    taken: set[str] = set()
    clean: dict[str, list[Sample]] = {}
    for name in POOLS:
        clean[name] = []
        mine: set[str] = set()
        for sample in sorted(kept[name], key=lambda sample: (sample.id, sample.source)):
            if sample.id in seen:
                dropped["duplicates"] += 1
            elif taken.intersection(sample.entities):
                dropped["leaks between splits"] += 1
            else:
                seen.add(sample.id)
                mine.update(sample.entities)
                clean[name].append(sample)
        if name != "test":
            taken |= mine
        else:
            held = mine
        if name == "ood":
            taken |= held
    return clean


def labels(records: Iterable[Sourced]) -> str:
    """One source label for a sample that several files made."""
    return " + ".join(sorted({source for source, _ in records}))


def of_type(records: Iterable[Sourced], kind: type[_T]) -> list[tuple[str, _T]]:
    """The records of one type with their source labels."""
    return [(source, record) for source, record in records if isinstance(record, kind)]


def overlaps(samples: Samples) -> dict[str, int]:
    """Entities that two pools share. All zero in the `sound` recipe."""
    entities = {name: {e for sample in samples.pool(name) for e in sample.entities} for name in POOLS}
    pairs: Sequence[tuple[str, str]] = (
        ("train", "val"), ("train", "test"), ("train", "ood"), ("val", "test"), ("val", "ood"),
    )  # fmt: skip
    return {f"{a}-{b}": len(entities[a] & entities[b]) for a, b in pairs}
