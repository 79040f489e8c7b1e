"""Attribute, value and source triples as JSON: AVE (spec D.4, D.8)."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from ecellm.errors import DataError
from ecellm.tasks.base import Case, Floats, Metrics

_EPSILON = 1e-6
_KEYS = ("attribute", "value", "source")
_BOUNDARY = re.compile(r'(?="attribute"\s*:)')


class Triples:
    """Rules of attribute value extraction."""

    def parse(self, text: str, options: str | None = None, family: str = "") -> str | None:
        """The list of triples as canonical JSON, whatever the order of elements and keys; None where it is no list."""
        elements = _strict_read(text, braceless=family == "t5")
        if elements is None:
            return None
        return json.dumps(sorted(elements, key=lambda one: json.dumps(one, sort_keys=True)), sort_keys=True)

    def paper(self, case: Case) -> Metrics:
        """Micro precision, recall and F1; every pair of gold and predicted triple that agrees is a hit."""
        hits = golds = said = invalid = 0
        raises = False
        for prediction, label in zip(case.predictions, case.labels, strict=True):
            gold = _gold(label)
            golds += len(gold)
            elements, failed, crashed = _paper_read(prediction, case.family)
            try:
                count = 0 if crashed else _paper_hits(gold, elements, case)
                named = 0 if crashed else sum("attribute" in e for e in elements)
            except (TypeError, KeyError):
                crashed, count, named = True, 0, 0
            raises, invalid = raises or crashed, invalid + (failed or crashed)
            hits, said = hits + count, said + named
        if not golds:
            nan = float("nan")
            return {"recall": nan, "precision": nan, "f1": nan, "#invalid": invalid, "reference_would_raise": True}
        recall, precision = hits / golds, hits / (said + _EPSILON)
        f1 = 2 * precision * recall / (precision + recall + _EPSILON)
        flag = {"reference_would_raise": True} if raises else {}
        return {"recall": recall, "precision": precision, "f1": f1, "#invalid": invalid, **flag}

    def items(self, case: Case) -> Floats:
        """[n, 4]: hits, predicted triples, gold triples, unreadable; one-to-one matching."""
        rows = []
        for k, (prediction, label) in enumerate(zip(case.predictions, case.labels, strict=True)):
            gold = _gold(label, place=f"gold answer {k}")
            elements = _strict_read(prediction, braceless=case.family == "t5")
            found = elements or []
            rows.append((_strict_hits(gold, found, "OOD" in case.setting), len(found), len(gold), elements is None))
        return np.asarray(rows, dtype=np.float64).reshape(-1, 4)

    def reduce(self, items: Floats) -> Metrics:
        """Micro precision, recall and F1."""
        hits, said, golds, failed = items.sum(axis=0) if len(items) else np.zeros(4)
        precision, recall = (hits / said if said else 0.0), (hits / golds if golds else 0.0)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        return {
            "recall": float(recall),
            "precision": float(precision),
            "f1": float(f1),
            "n_invalid": int(failed),
            "n": len(items),
        }

    def parts(self, items: Floats) -> Floats:
        """[n, 3]: hits, predicted and gold triples."""
        return items[:, :3]

    def of_sums(self, sums: Floats, n: int, metric: str) -> Floats:
        """Micro F1 of each selection."""
        both = sums[:, 1] + sums[:, 2]
        return np.divide(2 * sums[:, 0], both, out=np.zeros(len(sums)), where=both > 0)


def _load(text: str) -> Any:
    """The JSON value, or None where there is none. A number of thousands of digits or deep nesting is none too."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _gold(label: str, place: str = "") -> list[dict[str, str]]:
    value = _load(label)
    if isinstance(value, list) and all(isinstance(e, dict) for e in value):
        return value
    if not place:
        return []
    raise DataError(
        f"AVE: {place} is no list of triples",
        found=label[:120],
        expected='[{"attribute": ..., "value": ..., "source": ...}]',
        mend="give the rows' output column as labels",
    )


def _paper_read(text: str, family: str) -> tuple[list[Any], bool, bool]:
    """(elements, unreadable, the reference crashes)."""
    if family == "t5":
        pieces = text.replace("[", "").replace("]", "").split(', "attribute"')
        last = pieces[-1] if pieces[-1].startswith('"attribute"') else '"attribute"' + pieces[-1]
        value = _load("{" + last + "}")
        if not isinstance(value, dict):
            return [], True, False
        return [value], False, isinstance(value.get("attribute"), dict)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [], True, False
    if not isinstance(value, list):
        return [], False, False
    crashed = any(isinstance(e, int | float) or e is None for e in value)
    crashed = crashed or any(isinstance(e, str | list) and "attribute" in e for e in value)
    crashed = crashed or any(isinstance(e, dict) and isinstance(e.get("attribute"), dict | list) for e in value)
    return value, False, crashed


def _paper_hits(gold: list[dict[str, str]], elements: list[Any], case: Case) -> int:
    hits, relaxed = 0, "OOD" in case.setting
    for triple in gold:
        for element in elements:
            complete = isinstance(element, dict) and all(key in element for key in _KEYS)
            if not complete:
                # The T5 variant does not look whether value and source are there.
                if case.family == "t5" and element.get("attribute") == triple["attribute"]:
                    raise KeyError("value")
                continue
            same = [element[key] == triple[key] for key in _KEYS]
            hits += all(same) or (relaxed and same[0] and _paper_near(triple, element))
    return hits


def _paper_near(gold: dict[str, str], said: dict[str, Any]) -> bool:
    if said["value"] is None or said["source"] is None or gold["value"] is None or gold["source"] is None:
        return False
    a, b = str(gold["value"]), str(said["value"])
    if not (a in b or b in a):
        return False
    if not isinstance(said["source"], str):
        raise TypeError("a source that is no text stops the authors' evaluator")
    return gold["source"] in said["source"] or said["source"] in gold["source"]


def _strict_read(text: str, *, braceless: bool) -> list[Any] | None:
    value = _load(text)
    if isinstance(value, list):
        return value
    if value is not None or not braceless:
        return None
    body = text.strip()
    body = body[1:] if body.startswith("[") else body
    body = body[:-1] if body.endswith("]") else body
    pieces = [piece.strip().rstrip(",").strip() for piece in _BOUNDARY.split(body)]
    read = [_load("{" + piece + "}") for piece in pieces if piece]
    return read if any(isinstance(e, dict) for e in read) else None


def _well_formed(element: Any) -> bool:
    return isinstance(element, dict) and all(isinstance(element.get(key), str) for key in _KEYS)


def _strict_hits(gold: list[dict[str, str]], said: list[Any], relaxed: bool) -> int:
    """Each predicted triple takes at most one gold triple: equal ones first, then (OOD) near ones."""
    free, left, hits = list(range(len(gold))), [], 0
    for element in said:
        if not _well_formed(element):
            continue
        match = next((i for i in free if all(gold[i].get(key) == element[key] for key in _KEYS)), None)
        if match is None:
            left.append(element)
        else:
            free.remove(match)
            hits += 1
    for element in left if relaxed else []:
        match = next((i for i in free if _strict_near(gold[i], element)), None)
        if match is not None:
            free.remove(match)
            hits += 1
    return hits


def _strict_near(gold: dict[str, str], said: dict[str, str]) -> bool:
    pairs = [(gold.get(key, ""), said[key]) for key in ("value", "source")]
    if gold.get("attribute") != said["attribute"] or "None" in pairs[0]:
        return False
    return all(a and b and (a in b or b in a) for a, b in pairs)
