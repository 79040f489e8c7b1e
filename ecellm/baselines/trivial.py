"""Rules that need no model: what any model must beat. Each sees what a model sees, and the training rows' answers.

Not weak on purpose: copying and frequency are used wherever they help. The best of them, chosen on the test scores
themselves, is the opponent that a report names.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ecellm.records import Row
from ecellm.tasks.base import Task

Rule = Callable[[Sequence[Row], Sequence[Row], int], list[str]]


def answers(task: Task, train_rows: Sequence[Row], test_rows: Sequence[Row], seed: int) -> dict[str, list[str]]:
    """{rule: one reply for each test row}. Deterministic; a row's draw depends on the seed and its id alone."""
    return {name: rule(train_rows, test_rows, seed) for name, rule in _RULES[task.kind].items()}


def _draw(row: Row, seed: int) -> random.Random:
    return random.Random(hashlib.sha256(f"trivial {seed} {row.id}".encode()).hexdigest())


def _most_common(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    counts = Counter(row.output for row in train or test)
    best = min(counts, key=lambda text: (-counts[text], text)) if counts else ""
    return [best] * len(test)


def _constant(text: str) -> Rule:
    return lambda train, test, seed: [text] * len(test)


def _random_answer(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    known = sorted({row.output for row in train}) or [""]
    return [_draw(row, seed).choice(known) for row in test]


def _letters(row: Row) -> list[str]:
    """The letters of a ranking row's products, in the given order."""
    found = _value(row.input)
    listed = found.get("product list", ()) if isinstance(found, dict) else ()
    return [str(text)[:1] for text in listed] or ["A", "B"]


def _given_order(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [",".join(_letters(row)) for row in test]


def _reversed_order(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [",".join(_letters(row)[::-1]) for row in test]


def _random_order(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [",".join(_draw(row, seed).sample(_letters(row), len(_letters(row)))) for row in test]


def _overlap_order(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Products by the share of the query's words that their titles have."""
    return [",".join(_by_overlap(row)) for row in test]


def _by_overlap(row: Row) -> list[str]:
    value = _value(row.input)
    if not isinstance(value, dict):
        return _letters(row)
    wanted = set(str(value.get("query", "")).lower().split())
    shared = {str(t)[:1]: len(wanted & set(str(t)[2:].lower().split())) for t in value.get("product list", ())}
    return sorted(shared, key=lambda letter: (-shared[letter], letter))


def _nothing_stated(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Every attribute is absent."""
    return [json.dumps([_absent(name) for name in _targets(row)]) for row in test]


def _copy_known_value(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Of the values that training rows give an attribute, the longest that the product's texts contain."""
    known: dict[str, set[str]] = defaultdict(set)
    for row in train:
        for triple in _triples(row.output):
            known[triple["attribute"]].add(triple["value"])
    replies = []
    for row in test:
        found = [triple for name in _targets(row) for triple in _located(row, name, known[name])]
        replies.append(json.dumps(found or [_absent(name) for name in _targets(row)]))
    return replies


def _copy_title(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """The title's most telling place: the word that training answers copied most often by position, here the first."""
    replies = []
    for row in test:
        value = _value(row.input)
        title = str(value.get("product title", "")) if isinstance(value, dict) else ""
        word = (title.lower().split() or ["None"])[0]
        triples = [{"attribute": name, "value": word, "source": "product title"} for name in _targets(row)]
        replies.append(json.dumps(triples))
    return replies


def _targets(row: Row) -> list[str]:
    value = _value(row.input)
    named = str(value.get("target attributes", "")) if isinstance(value, dict) else ""
    return [name.lower() for name in named.split(" and ")]


def _located(row: Row, name: str, values: Iterable[str]) -> list[dict[str, str]]:
    value = _value(row.input)
    texts = {k: f" {str(t).lower()} " for k, t in value.items() if k != "target attributes"}
    for candidate in sorted(values, key=lambda text: (-len(text), text)):
        places = [key for key, text in texts.items() if candidate != "None" and f" {candidate} " in text]
        if places:
            return [{"attribute": name, "value": candidate, "source": key} for key in places]
    return []


def _absent(name: str) -> dict[str, str]:
    return {"attribute": name, "value": "None", "source": "None"}


def _triples(text: str) -> list[dict[str, str]]:
    found = _value(text)
    return (
        [e for e in found if isinstance(e, dict) and {"attribute", "value"} <= set(e)]
        if isinstance(found, list)
        else []
    )


def _document(row: Row) -> list[str]:
    value = _value(row.input)
    document = value.get("document", ()) if isinstance(value, dict) else ()
    return [document] if isinstance(document, str) else [str(text) for text in document]


def _first_snippet(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [(_document(row) or [""])[0] for row in test]


def _longest_snippet(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [max(_document(row) or [""], key=len) for row in test]


def _overlap_snippet(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """The snippet that shares most words with the question."""
    replies = []
    for row in test:
        value = _value(row.input)
        asked = set(str(value.get("question", "")).lower().strip("?").split()) if isinstance(value, dict) else set()
        shared = [(len(asked & set(text.lower().split())), -i, text) for i, text in enumerate(_document(row))]
        replies.append(max(shared)[2] if shared else "")
    return replies


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


_COPIES: dict[str, Rule] = {"first_snippet": _first_snippet, "longest_snippet": _longest_snippet}
_RULES: dict[str, dict[str, Rule]] = {
    "binary": {"always_yes": _constant("yes"), "always_no": _constant("no"), "random_answer": _random_answer},
    "choice": {"majority": _most_common, "random_answer": _random_answer},
    "ranking": {
        "given_order": _given_order,
        "reversed_order": _reversed_order,
        "random_order": _random_order,
        "query_overlap": _overlap_order,
    },
    "extraction": {"none_stated": _nothing_stated, "copy_known_value": _copy_known_value, "copy_title": _copy_title},
    "text": {"most_common": _most_common, "overlap_snippet": _overlap_snippet, **_COPIES},
}
