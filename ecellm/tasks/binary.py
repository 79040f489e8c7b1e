"""Yes or no: PM, PSI, AP (spec D.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecellm.tasks.base import Case, Floats, Metrics

_TINY = 1e-8


def read(text: str) -> str | None:
    """`yes` or `no`, whatever the case and the space around it; anything more is no answer."""
    word = text.strip().lower()
    return word if word in ("yes", "no") else None


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _table(gold: Sequence[bool], said: Sequence[bool]) -> tuple[int, int, int, int]:
    """(true positives, false positives, false negatives, true negatives)."""
    g, s = np.asarray(gold, bool), np.asarray(said, bool)
    return int((g & s).sum()), int((~g & s).sum()), int((g & ~s).sum()), int((~g & ~s).sum())


def _common(tp: int, fp: int, fn: int, tn: int) -> Metrics:
    recall, precision = _ratio(tp, tp + fn), _ratio(tp, tp + fp)
    return {
        "acc": _ratio(tp + tn, tp + fp + fn + tn),
        "recall": recall,
        "precision": precision,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


class YesNo:
    """Rules of the binary tasks, `yes` being the positive class."""

    def parse(self, text: str, options: str | None = None, family: str = "") -> str | None:
        """`yes`, `no` or None."""
        return read(text)

    def paper(self, case: Case) -> Metrics:
        """Unreadable replies leave the denominator; specificity and npr carry an epsilon of 1e-8."""
        pairs = [(g, read(p)) for p, g in zip(case.predictions, case.labels, strict=True)]
        kept = [(_gold(g), p == "yes") for g, p in pairs if p is not None]
        invalid = len(pairs) - len(kept)
        if not kept:
            keys = ("acc", "recall", "precision", "f1", "specificity", "npr")
            return {**dict.fromkeys(keys, float("nan")), "#invalid": invalid, "reference_would_raise": True}
        tp, fp, fn, tn = _table([g for g, _ in kept], [p for _, p in kept])
        metrics = _common(tp, fp, fn, tn) | {"specificity": tn / (tn + fp + _TINY), "npr": tn / (tn + fn + _TINY)}
        one_class = not (tp or fp or fn) or not (tn or fp or fn)
        return metrics | {"#invalid": invalid} | ({"reference_would_raise": True} if one_class else {})

    def items(self, case: Case) -> Floats:
        """[n, 3]: gold is yes, counted as yes (the opposite of gold where unreadable), unreadable."""
        rows = []
        for prediction, label in zip(case.predictions, case.labels, strict=True):
            gold, said = _gold(label), read(prediction)
            rows.append((gold, (said == "yes") if said else not gold, said is None))
        return np.asarray(rows, dtype=np.float64).reshape(-1, 3)

    def reduce(self, items: Floats) -> Metrics:
        """Metrics over all items; 0 where a denominator is 0."""
        tp, fp, fn, tn = _table(items[:, 0] > 0, items[:, 1] > 0)  # type: ignore[arg-type]
        return _common(tp, fp, fn, tn) | {
            "specificity": _ratio(tn, tn + fp),
            "npv": _ratio(tn, tn + fn),
            "n_invalid": int(items[:, 2].sum()),
            "n": len(items),
        }

    def parts(self, items: Floats) -> Floats:
        """[n, 3]: true positive, false positive, false negative."""
        gold, said = items[:, 0] > 0, items[:, 1] > 0
        return np.column_stack([gold & said, ~gold & said, gold & ~said]).astype(np.float64)

    def of_sums(self, sums: Floats, n: int, metric: str) -> Floats:
        """F1 of each selection."""
        hits, wrong = 2 * sums[:, 0], sums[:, 1] + sums[:, 2]
        return np.divide(hits, hits + wrong, out=np.zeros(len(sums)), where=hits + wrong > 0)


def _gold(label: str) -> bool:
    return label.strip().lower() == "yes"
