"""Lexical rules: word overlap and values known from training rows. No model, but stronger than the trivial rules.

PRP, SA, SR and MPC have none: a task is in `_RULES` only where counting shared words says something about its answer.
The threshold of `overlap_threshold` is learnt on training rows, never on the rows that are answered.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ecellm.baselines.inputs import Rule, absent, decoded, document, fields, letters, listed, targets
from ecellm.records import Row
from ecellm.tasks.base import Task

THRESHOLDS = tuple(k / 20 for k in range(21))


def answers(task: Task, train_rows: Sequence[Row], test_rows: Sequence[Row], seed: int) -> dict[str, list[str]]:
    """{rule: one reply for each test row}; empty for tasks without a lexical rule. Nothing here is drawn."""
    return {name: rule(train_rows, test_rows, seed) for name, rule in _RULES.get(task.id, {}).items()}


def _query_overlap(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Products by the number of the query's words that their titles have, equals in letter order."""
    replies = []
    for row in test:
        wanted = _words(fields(row).get("query", ""))
        shared = {text[:1]: len(wanted & _words(text[2:])) for text in listed(row)}
        replies.append(",".join(sorted(shared or letters(row), key=lambda one: (-shared.get(one, 0), one))))
    return replies


def _copy_known_value(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Of the values that training rows give an attribute, the longest that the product's texts contain."""
    known: dict[str, set[str]] = defaultdict(set)
    for row in train:
        for triple in _triples(row.output):
            known[str(triple["attribute"])].add(str(triple["value"]))
    replies = []
    for row in test:
        found = [triple for name in targets(row) for triple in _located(row, name, known[name])]
        replies.append(json.dumps(found or [absent(name) for name in targets(row)]))
    return replies


def _located(row: Row, name: str, values: Iterable[str]) -> list[dict[str, str]]:
    texts = {key: f" {str(text).lower()} " for key, text in fields(row).items() if key != "target attributes"}
    for candidate in sorted(values, key=lambda text: (-len(text), text)):
        places = [key for key, text in texts.items() if candidate != "None" and f" {candidate} " in text]
        if places:
            return [{"attribute": name, "value": candidate, "source": key} for key in places]
    return []


def _triples(text: str) -> list[dict[str, object]]:
    found = decoded(text)
    entries = found if isinstance(found, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and {"attribute", "value"} <= set(entry)]


def _overlap_snippet(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """The snippet that shares most words with the question, the first of equals."""
    replies = []
    for row in test:
        asked = _words(fields(row).get("question", ""))
        replies.append(max(document(row), key=lambda text: len(asked & _words(text)), default=""))
    return replies


def _overlap_threshold(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Yes where the two texts share at least (or less than) the part of words that gave training rows the best F1."""
    scored = [(_shared(row), row.output.strip().lower() == "yes") for row in train]
    choices = [(cut, above) for above in (True, False) for cut in THRESHOLDS]
    cut, above = max(choices, key=lambda choice: _f1(scored, *choice)) if scored else (0.5, True)
    return ["yes" if (_shared(row) >= cut) == above else "no" for row in test]


def _f1(scored: Sequence[tuple[float, bool]], cut: float, above: bool) -> float:
    hits = sum(gold for share, gold in scored if (share >= cut) == above)
    wrong = sum((share >= cut) == above for share, _ in scored) + sum(gold for _, gold in scored)
    return 2 * hits / wrong if wrong else 0.0


def _shared(row: Row) -> float:
    """Words that the input's first two fields share, as a part of the shorter one's; of a product, its title's."""
    texts = [text.get("title", text) if isinstance(text, dict) else text for text in fields(row).values()]
    left, right = [*map(_words, texts), set(), set()][:2]
    return len(left & right) / max(1, min(len(left), len(right)))


def _words(text: object) -> set[str]:
    parts = text if isinstance(text, list) else [text]
    return {word.strip("?!.,;:()\"'") for part in parts for word in str(part).lower().split()} - {""}


_THRESHOLD: dict[str, Rule] = {"overlap_threshold": _overlap_threshold}
_RULES: dict[str, dict[str, Rule]] = {
    "AVE": {"copy_known_value": _copy_known_value},
    "PM": _THRESHOLD,
    "PSI": _THRESHOLD,
    "QPR": {"query_overlap": _query_overlap},
    "AP": _THRESHOLD,
    "AG": {"overlap_snippet": _overlap_snippet},
}
