"""MADE UP: titles, descriptions and queries of invented products, from their rows of integers.

Not reviews or questions (opinions.py, questions.py). One decision to know: words that state a value stand free
between spaces, so a value's place in a text is found again by looking for it.
"""

from __future__ import annotations

from ecellm.sources.marketplace.draws import pick, split_uniform
from ecellm.sources.marketplace.words import ATTRIBUTES, GROUPS, JAPANESE, LINES, OPENERS, SPANISH
from ecellm.sources.marketplace.world import Item


def title(item: Item) -> str:
    """Four to ten words: brand, series, type, one or two values, sometimes the model number."""
    values = [item.value(attribute) for attribute in item.title_attributes]
    form = item.style % 4
    if form == 0:
        words = [item.brand, item.series, *values, item.word]
    elif form == 1:
        words = [item.brand, *values[:1], item.word, item.series, *values[1:]]
    elif form == 2:
        words = [item.brand, item.series, item.word, *values]
    else:
        words = [*values[:1], item.word, "by", item.brand, item.series, *values[1:]]
    if item.style >> 2 & 7 == 0:
        words.append(item.model)
    return " ".join(words)


def foreign_title(item: Item) -> str:
    """A title in Spanish, with the type's word left as it is."""
    colour = SPANISH[item.value(0)]
    return f"{item.word} de color {colour} marca {item.brand} nuevo para la casa"


def japanese_title(item: Item) -> str:
    return f"{item.brand} の新しい製品 {JAPANESE[item.value(0)]} {item.word}"


def marked_up(text: str) -> str:
    """The text with the markup that real catalogues carry."""
    head, _, tail = text.partition(" ")
    return f"<b>{head}</b> {tail} &amp; more"


def phrase(item: Item, attribute: int, uniform: float) -> str:
    """Words that state one value, as `made of steel`."""
    return pick(ATTRIBUTES[attribute][2], uniform).format(item.value(attribute))


def description(item: Item, uniform: float) -> str:
    """Six to twelve words: an opener and one or two statements."""
    place, rest = split_uniform(uniform, len(OPENERS))
    parts = [OPENERS[place], item.word]
    for attribute in item.description_attributes:
        choice, rest = split_uniform(rest, 16)
        parts.append(phrase(item, attribute, choice / 16))
    return " ".join(parts)


def features(item: Item, uniform: float) -> list[str]:
    """One short bullet for each statement."""
    bullets = []
    rest = uniform
    for attribute in item.feature_attributes:
        choice, rest = split_uniform(rest, 16)
        bullets.append(phrase(item, attribute, choice / 16))
    return bullets


def price(item: Item) -> str:
    return f"${item.cents // 100}.{item.cents % 100:02d}"


def category(item: Item) -> list[str]:
    """The category path, broad to narrow."""
    line = LINES[item.line]
    return [GROUPS[line.group].replace("_", " ").replace("and", "&"), line.name, item.word.capitalize()]


def places(text: str, value: str) -> list[tuple[int, int]]:
    """Where a value stands free in a text, as (begin, end) in characters."""
    found = []
    padded = f" {text} "
    at = padded.find(f" {value} ")
    while at >= 0:
        found.append((at, at + len(value)))
        at = padded.find(f" {value} ", at + 1)
    return found
