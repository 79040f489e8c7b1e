"""A row as task-specific models see it: texts to classify, candidates to rank, or spans to find. No model here.

The instruction and the template have no part in it: these models know their task. A row whose input has another form
than expected gives empty texts, never an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ecellm.baselines.inputs import document, fields, targets
from ecellm.records import Row
from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.ranking import GAINS

CLASSIFIED = ("PRP", "PM", "SA", "MPC", "PSI", "AP")
RANKED = ("SR", "QPR", "AG")
HISTORY = 5
"""Latest items of a purchase history that are looked at."""
LONGEST_SPAN = 6
"""Words of an attribute's value."""
_EDGES = "?!.,;:()[]{}\"'"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Texts to rank for one row: the query, the candidates with the reply that each stands for, and their worth."""

    query: str
    texts: tuple[str, ...]
    replies: tuple[str, ...]
    gains: tuple[float, ...]
    """0 to 1; what training learns from."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of words in one of a product's texts, as a possible value."""

    value: str
    source: str
    before: str
    after: str
    place: int


def pair(row: Row) -> tuple[str, str]:
    """The two texts of a row to classify; the second is empty for a review."""
    found = [_joined(value) for value in fields(row).values()]
    return (found[0], " ".join(found[1:])) if found else (row.input, "")


def classes(rows: Sequence[Row]) -> list[str]:
    """The answers that rows have, most frequent first."""
    counts = Counter(row.output for row in rows)
    return sorted(counts, key=lambda text: (-counts[text], text))


def candidates(task: Task, row: Row) -> Candidates:
    """What a row of SR, QPR or AG is answered with."""
    if task.id == "SR":
        found = options.lettered(row.options)
        history = options.literal(row.input)
        items = [str(item).partition(":")[2].strip() for item in history] if isinstance(history, list) else []
        letters = tuple(text.strip()[:1] for text in found)
        gains = tuple(float(letter == row.output.strip()) for letter in letters)
        texts = tuple(text.partition(":")[2].strip() for text in found)
        return Candidates(" | ".join(items[: -HISTORY - 1 : -1]), texts, letters, gains)
    if task.id == "QPR":
        found = options.listed_products(row)
        letters = tuple(text.strip()[:1] for text in found)
        texts = tuple(text.partition(":")[2].strip() for text in found)
        return Candidates(_joined(fields(row).get("query", "")), texts, letters, _gains(row, letters))
    snippets = tuple(text for text in document(row) if text.strip())
    gold = Counter(words(row.output))
    worth = tuple(_overlap(Counter(words(text)), gold) for text in snippets)
    return Candidates(_joined(fields(row).get("question", "")), snippets, snippets, worth)


def spans(row: Row) -> list[Span]:
    """Every run of up to `LONGEST_SPAN` words of a product's texts, lower-cased, without marks at its ends."""
    found: dict[tuple[str, str], Span] = {}
    for source, value in fields(row).items():
        if source == "target attributes":
            continue
        parts = _joined(value).lower().split()
        for begin in range(len(parts)):
            for end in range(begin + 1, min(len(parts), begin + LONGEST_SPAN) + 1):
                text = " ".join(parts[begin:end]).strip(_EDGES + " ")
                before = parts[begin - 1] if begin else "^"
                after = parts[end] if end < len(parts) else "$"
                if text and (source, text) not in found:
                    found[source, text] = Span(text, source, before, after, begin)
    return list(found.values())


def wanted_values(row: Row) -> set[tuple[str, str]]:
    """The (value, source) pairs of a row's gold answer; empty where the attribute is not stated."""
    triples = options.literal(row.output)
    if not isinstance(triples, list):
        return set()
    found = {(str(one.get("value")), str(one.get("source"))) for one in triples if isinstance(one, dict)}
    return {pair for pair in found if pair[0] != "None"}


def attribute(row: Row) -> str:
    """The attribute that an extraction row asks for; several are one name."""
    return " and ".join(targets(row))


def words(text: str) -> list[str]:
    """Lower-cased words without marks at their ends."""
    return [word for part in text.lower().split() if (word := part.strip(_EDGES))]


def _gains(row: Row, letters: Sequence[str]) -> tuple[float, ...]:
    if row.option_labels and len(row.option_labels) == len(letters):
        return tuple(GAINS[label] for label in row.option_labels)
    order = [text.strip() for text in row.output.split(",")]
    return tuple(1 / (1 + order.index(letter)) if letter in order else 0.0 for letter in letters)


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    """F1 of two bags of words."""
    shared = sum((one & other).values())
    return 2 * shared / (one.total() + other.total()) if shared else 0.0


def _joined(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(_joined(inner) for inner in value.values())
    if isinstance(value, list):
        return " ".join(_joined(inner) for inner in value)
    return "" if value is None or value != value else str(value)
