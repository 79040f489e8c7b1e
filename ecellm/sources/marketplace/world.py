"""Made-up marketplace: its products and how they belong together. Labels follow from these facts, with some noise."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

from ecellm.sources.marketplace.words import ACCESSORIES, ATTRIBUTES, BRANDS, GROUPS, MEASURED, NAMED


@dataclass(frozen=True, slots=True)
class Item:
    """One invented product."""

    id: str
    group: str
    type: str
    brand: str
    model: str
    values: dict[str, str]
    """Attribute -> value."""
    price: float


@dataclass(slots=True)
class World:
    """All products, and the ways to draw related ones."""

    items: list[Item]
    by_type: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    by_group: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for item in self.items:
            self.by_type[item.type].append(item)
            self.by_group[item.group].append(item)


def attributes_of(kind: str) -> tuple[str, ...]:
    """The attributes that products of a type have."""
    others = [*list(NAMED)[2:], *MEASURED]
    draw = random.Random(f"attributes of {kind}")
    return ("color", "material", *draw.sample(others, 3))


def complement(kind: str) -> str:
    """The type that people buy with this one: an accessory for a main product, a main product for an accessory."""
    for types in GROUPS.values():
        if kind in types:
            main, extra = types[:-ACCESSORIES], types[-ACCESSORIES:]
            return extra[main.index(kind) % len(extra)] if kind in main else main[extra.index(kind)]
    raise KeyError(kind)


def make_world(products: int, seed: int) -> World:
    """`products` products spread over all categories and types."""
    draw = random.Random(f"world {seed}")
    kinds = [(group, kind) for group, types in GROUPS.items() for kind in types]
    has = {kind: attributes_of(kind) for _, kind in kinds}
    items = []
    for number in range(products):
        group, kind = kinds[number % len(kinds)]
        values = {name: draw.choice(ATTRIBUTES[name]) for name in has[kind]}
        model = draw.choice("abcdefghkm") + str(draw.randrange(100, 1000))
        price = round(draw.uniform(5, 200), 2)
        items.append(Item(f"MU{number:08d}", group, kind, draw.choice(BRANDS[group]), model, values, price))
    return World(items)


def title(item: Item, draw: random.Random) -> str:
    """A shop title: brand and type, and some of the attributes, in one of a few orders."""
    named = [value for name, value in item.values.items() if name in NAMED]
    measured = [value for name, value in item.values.items() if name in MEASURED]
    words = [word for word in named[:3] if draw.random() < 0.7]
    tail = [word for word in measured[:1] if draw.random() < 0.5] + ([item.model] if draw.random() < 0.3 else [])
    parts = [item.brand, *words, item.type, *tail]
    if draw.random() < 0.2:
        parts = [item.brand, item.type, *words, *tail]
    return " ".join(parts)


def description(item: Item, draw: random.Random) -> str:
    """A sentence that states two of the attributes."""
    facts = draw.sample(sorted(item.values.items()), 2)
    stated = " and ".join(f"{name} {value}" for name, value in facts)
    return draw.choice((f"{item.type} with {stated}.", f"this {item.brand} {item.type} has {stated}."))


def features(item: Item, draw: random.Random) -> list[str]:
    """One or two bullet points."""
    names = draw.sample(sorted(item.values), draw.choice((1, 2)))
    return [f"{name}: {item.values[name]}" for name in names]
