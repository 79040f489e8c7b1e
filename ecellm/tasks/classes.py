"""One letter of a few: MPC (A-D), SA (A-E), PRP (A-C); macro averages (spec D.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecellm.tasks.base import Case, Floats, Metrics
from ecellm.tasks.letters import first_line, letter

_PAPER_LETTERS = "ABCDE"


@dataclass(frozen=True, slots=True)
class Choice:
    """Rules of the multi-class tasks. `options` are the task's letters."""

    options: str

    def parse(self, text: str, options: str | None = None, family: str = "") -> str | None:
        """The letter, or None."""
        return letter(first_line(text), self.options)

    def paper(self, case: Case) -> Metrics:
        """The reply's first character against A to E, whatever follows; others leave the denominator."""
        pairs, raises = [], False
        for prediction, label in zip(case.predictions, case.labels, strict=True):
            text = prediction.strip()
            raises = raises or not text
            if text[:1] and text[0] in _PAPER_LETTERS:
                pairs.append((_index(label), _PAPER_LETTERS.index(text[0])))
        invalid = len(case.labels) - len(pairs)
        flag = {"reference_would_raise": True} if raises else {}
        if not pairs:
            return {**dict.fromkeys(("acc", "recall", "precision", "f1"), float("nan")), "#invalid": invalid, **flag}
        gold, said = np.asarray(pairs).T
        return _macro(gold, said, np.union1d(gold, said)) | {"#invalid": invalid} | flag

    def items(self, case: Case) -> Floats:
        """[n, 2]: gold class, said class (-1 where unreadable)."""
        rows = []
        for prediction, label in zip(case.predictions, case.labels, strict=True):
            said = self.parse(prediction)
            rows.append((_index(label), _PAPER_LETTERS.index(said) if said else -1))
        return np.asarray(rows, dtype=np.float64).reshape(-1, 2)

    def reduce(self, items: Floats) -> Metrics:
        """Macro averages over the classes that gold has; accuracy over all items."""
        gold, said = items[:, 0], items[:, 1]
        return _macro(gold, said, np.unique(gold)) | {"n_invalid": int((said < 0).sum()), "n": len(items)}

    def parts(self, items: Floats) -> Floats:
        """[n, 15]: for each letter whether it was right, gold, said."""
        letters = np.arange(len(_PAPER_LETTERS))
        gold, said = items[:, :1] == letters, items[:, 1:2] == letters
        return np.concatenate([gold & said, gold, said], axis=1).astype(np.float64)

    def of_sums(self, sums: Floats, n: int, metric: str) -> Floats:
        """Accuracy, or F1 averaged over the classes that a selection's gold has."""
        hits, golds, saids = np.split(sums, 3, axis=1)
        if metric == "acc":
            return np.asarray(hits.sum(axis=1) / max(1, n))
        there = golds > 0
        each = np.where(there, 2 * hits / np.maximum(golds + saids, 1), 0.0)
        return np.asarray(each.sum(axis=1) / np.maximum(there.sum(axis=1), 1))


def _index(label: str) -> int:
    return ord(label.strip()[:1] or "?") - ord("A")


def _macro(gold: Floats, said: Floats, classes: Floats) -> Metrics:
    if not len(gold):
        return dict.fromkeys(("acc", "recall", "precision", "f1"), 0.0)
    is_gold, is_said = (column[None, :] == classes[:, None] for column in (gold, said))
    hits = (is_gold & is_said).sum(axis=1).astype(np.float64)
    golds, saids = is_gold.sum(axis=1).astype(np.float64), is_said.sum(axis=1).astype(np.float64)
    return {
        "acc": float((gold == said).mean()),
        "recall": float(np.mean(hits / np.maximum(golds, 1))),
        "precision": float(np.mean(hits / np.maximum(saids, 1))),
        "f1": float(np.mean(2 * hits / np.maximum(golds + saids, 1))),
    }
