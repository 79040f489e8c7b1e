"""TF-IDF with logistic regression, by scikit-learn: one small model for each task, learnt on the same rows.

Pairs of texts are seen as the words of each, the words that both have, and a few similarities; rankings are scored
candidate by candidate, attribute values span by span. Every choice of a threshold is made on training rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecellm.baselines import views
from ecellm.baselines.inputs import absent, targets
from ecellm.records import Row
from ecellm.tasks.base import Task

_STRENGTH = {"classify": 4.0, "rank": 1.0, "span": 4.0}
"""C of the regression: how freely it follows the training rows."""
_MOST_NEGATIVES = 40
"""Wrong spans of a training row that are looked at."""
_THRESHOLDS = tuple(k / 20 for k in range(1, 20))


def answers(task: Task, train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """One reply for each test row; none at all where there is nothing to learn from."""
    if not train:
        return []
    if task.id in views.CLASSIFIED:
        return _classified(train, test, seed)
    if task.id in views.RANKED:
        return _ranked(task, train, test, seed)
    return _extracted(train, test, seed)


class _Pairs:
    """Features of pairs of texts: [n, f] sparse."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = [text for pair in pairs for text in pair]
        self._words: Any = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+").fit(texts)
        self._letters: Any = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit(texts)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Any:
        from scipy.sparse import csr_matrix, hstack

        one, other = (self._words.transform([pair[side].lower() for pair in pairs]) for side in (0, 1))
        near, far = (self._letters.transform([pair[side].lower() for pair in pairs]) for side in (0, 1))
        both = one.multiply(other)
        dense = np.column_stack([
            np.asarray(both.sum(axis=1)).ravel(), np.asarray(near.multiply(far).sum(axis=1)).ravel(),
            [_shared(*pair) for pair in pairs], [_shared(*reversed(pair)) for pair in pairs],
        ])  # fmt: skip
        return hstack([one, other, both, abs(one - other), csr_matrix(dense)]).tocsr()


def _shared(one: str, other: str) -> float:
    """The part of one text's words that the other has."""
    mine, theirs = set(views.words(one)), set(views.words(other))
    return len(mine & theirs) / len(mine) if mine else 0.0


def _regression(kind: str, seed: int, balanced: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression

    weight = "balanced" if balanced else None
    return LogisticRegression(C=_STRENGTH[kind], max_iter=1000, class_weight=weight, random_state=seed)


def _classified(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    known = [row.output for row in train]
    if len(set(known)) == 1:
        return [known[0]] * len(test)
    pairs = [views.pair(row) for row in train]
    features = _Pairs(pairs)
    model = _regression("classify", seed, balanced=True).fit(features(pairs), known)
    return [str(reply) for reply in model.predict(features([views.pair(row) for row in test]))] if test else []


def _ranked(task: Task, train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """Candidates by the probability of being better than half of what a candidate can be."""
    learnt = [views.candidates(task, row) for row in train]
    pairs = [(one.query, text) for one in learnt for text in one.texts]
    good = np.array([gain >= 0.5 * max(one.gains) > 0 for one in learnt for gain in one.gains], dtype=bool)
    if not pairs or good.all() or not good.any():
        return []
    features = _Pairs(pairs)
    model = _regression("rank", seed, balanced=True).fit(features(pairs), good)
    replies = []
    for row in test:
        one = views.candidates(task, row)
        worth = model.predict_proba(features([(one.query, text) for text in one.texts]))[:, 1] if one.texts else []
        order = sorted(range(len(one.texts)), key=lambda i: (-worth[i], i))
        ranked = [one.replies[i] for i in order]
        replies.append(",".join(ranked) if task.id == "QPR" else ranked[0] if ranked else "")
    return replies


def _extracted(train: Sequence[Row], test: Sequence[Row], seed: int) -> list[str]:
    """The best span of each row, where it is likelier than a threshold learnt on rows that the model has not seen."""
    halves = [train[::2], train[1::2]] if len(train) > 3 else [train, train]
    pairs = []
    for half, other in ((halves[0], halves[1]), (halves[1], halves[0])):
        model = _SpanModel(half, seed)
        pairs += [(model.best(row), views.wanted_values(row)) for row in other]
    cut = max(_THRESHOLDS, key=lambda value: (_f1(pairs, value), -value))
    model = _SpanModel(train, seed)
    return [_reply(row, model.best(row), cut) for row in test]


Best = tuple[float, str, tuple[str, ...]]
"""(probability, value, the texts that hold it)."""


def _f1(pairs: Sequence[tuple[Best, set[tuple[str, str]]]], cut: float) -> float:
    hits = said = gold = 0
    for (sure, value, sources), wanted in pairs:
        mine = {(value, source) for source in sources} if sure >= cut else {("None", "None")}
        true = wanted or {("None", "None")}
        hits, said, gold = hits + len(mine & true), said + len(mine), gold + len(true)
    return 2 * hits / (said + gold) if said + gold else 0.0


def _reply(row: Row, best: Best, cut: float) -> str:
    sure, value, sources = best
    names = targets(row)
    if sure < cut or not sources:
        return json.dumps([absent(name) for name in names])
    return json.dumps([{"attribute": name, "value": value, "source": text} for name in names for text in sources])


class _SpanModel:
    """How likely a span is the value of an attribute."""

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self._hash: Any = HashingVectorizer(analyzer=lambda found: found, n_features=2**18, alternate_sign=False)
        self._known: Counter[tuple[str, str]] = Counter()
        """(attribute, value) -> rows whose answer it is."""
        for row in rows:
            self._known.update((views.attribute(row), value) for value in _values(row))
        draw = np.random.default_rng(seed)
        seen, right = [], []
        for row in rows:
            wanted = _values(row)
            found = views.spans(row)
            wrong = [span for span in found if span.value not in wanted]
            kept: Any = draw.choice(len(wrong), min(len(wrong), _MOST_NEGATIVES), replace=False) if wrong else []
            for span in [*(span for span in found if span.value in wanted), *(wrong[i] for i in kept)]:
                seen.append(self._features(span, views.attribute(row), own=int(span.value in wanted)))
                right.append(span.value in wanted)
        self._model: Any = None
        if any(right) and not all(right):
            self._model = _regression("span", seed).fit(self._hash.transform(seen), right)

    def best(self, row: Row) -> Best:
        """The likeliest span of a row."""
        found, name = views.spans(row), views.attribute(row)
        if not found or self._model is None:
            return 0.0, "", ()
        sure = self._model.predict_proba(self._hash.transform([self._features(span, name) for span in found]))[:, 1]
        top = max(range(len(found)), key=lambda i: (sure[i], len(found[i].value), -i))
        value = found[top].value
        return float(sure[top]), value, tuple(span.source for span in found if span.value == value)

    def _features(self, span: views.Span, name: str, own: int = 0) -> list[str]:
        """Marks of a span, alone and together with the attribute; it is known where rows beside its `own` have it."""
        parts = span.value.split()
        marks = [
            f"value {span.value}", f"words {len(parts)}", f"shape {_shape(span.value)}", f"before {span.before}",
            f"after {span.after}", f"source {span.source}", f"place {min(span.place, 4)}", f"first {parts[0]}",
            f"last {parts[-1]}", *(f"word {part}" for part in parts),
        ]  # fmt: skip
        if self._known[name, span.value] > own:
            marks.append("known")
        return [*marks, *(f"{mark} of {name}" for mark in marks)]


def _values(row: Row) -> set[str]:
    return {value for value, _ in views.wanted_values(row)}


def _shape(text: str) -> str:
    """Letters, digits and the rest, repeats once: `9.77"` is `0.0"`."""
    found = ""
    for letter in text:
        kind = "a" if letter.isalpha() else "0" if letter.isdigit() else letter
        if not found.endswith(kind):
            found += kind
    return found[:8]
