"""Trivial rules: the majority, one constant answer, a given or random order, a copy of a fixed part of the input.

None compares texts or learns which values occur; rules that do are in `lexical.py`, and a report keeps the two apart.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence

from ecellm.baselines.inputs import Rule, absent, document, fields, letters, targets
from ecellm.records import Row
from ecellm.tasks import registry
from ecellm.tasks.base import Task


def answers(task: Task, train_rows: Sequence[Row], test_rows: Sequence[Row], seed: int) -> dict[str, list[str]]:
    """{rule: one reply for each test row}. Deterministic; a row's draw depends on the seed and its id alone."""
    return {name: rule(train_rows, test_rows, seed) for name, rule in _RULES[task.kind].items()}


def _draw(row: Row, seed: int) -> random.Random:
    return random.Random(hashlib.sha256(f"trivial {seed} {row.id}".encode()).hexdigest())


def _most_common(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """The commonest training answer; without any, a row's first option, or nothing: gold is not looked at."""
    counts = Counter(row.output for row in train)
    if not counts:
        return [next(iter(registry.task(row.task).options(row)), "") for row in test]
    return [min(counts, key=lambda text: (-counts[text], text))] * len(test)


def _constant(text: str) -> Rule:
    return lambda train, test, seed: [text] * len(test)


def _random_answer(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    known = sorted({row.output for row in train}) or [""]
    return [_draw(row, seed).choice(known) for row in test]


def _given_order(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [",".join(letters(row)) for row in test]


def _reversed_order(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [",".join(letters(row)[::-1]) for row in test]


def _random_order(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [",".join(_draw(row, seed).sample(letters(row), len(letters(row)))) for row in test]


def _none_stated(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Every attribute is absent."""
    return [json.dumps([absent(name) for name in targets(row)]) for row in test]


def _copy_title(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """The title's first word as the value of every attribute."""
    replies = []
    for row in test:
        word = (str(fields(row).get("product title", "")).lower().split() or ["None"])[0]
        triples = [{"attribute": name, "value": word, "source": "product title"} for name in targets(row)]
        replies.append(json.dumps(triples))
    return replies


def _first_snippet(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [(document(row) or [""])[0] for row in test]


def _longest_snippet(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    return [max(document(row) or [""], key=len) for row in test]


_RULES: dict[str, dict[str, Rule]] = {
    "binary": {"always_yes": _constant("yes"), "always_no": _constant("no"), "random_answer": _random_answer},
    "choice": {"majority": _most_common, "random_answer": _random_answer},
    "ranking": {"given_order": _given_order, "reversed_order": _reversed_order, "random_order": _random_order},
    "extraction": {"none_stated": _none_stated, "copy_title": _copy_title},
    "text": {"most_common": _most_common, "first_snippet": _first_snippet, "longest_snippet": _longest_snippet},
}
