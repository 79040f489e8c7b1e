"""An order of lettered products: QPR (spec D.6)."""

from __future__ import annotations

import math
import re

import numpy as np

from ecellm.tasks.base import Case, Floats, Metrics
from ecellm.tasks.letters import first_line, letter

GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
"""Relevance of an ESCI label."""
WORTH = tuple(2.0**gain - 1.0 for gain in GAINS.values())
"""What items of each label add to DCG, before the discount of their place; the best first."""
_PAPER_EPSILON = 1e-6
_FOUR = "ABCD"


def dcg(gains: list[float]) -> float:
    """Discounted cumulative gain: the sum of (2^g - 1) / log2(i + 2) over positions i = 0, 1, ..."""
    return math.fsum((2.0**gain - 1.0) / math.log2(i + 2) for i, gain in enumerate(gains))


class Ranking:
    """Rules of query-product ranking."""

    def parse(self, text: str, options: str | None = None, family: str = "") -> str | None:
        """Letters of the row's options (A to D without a row) in order without repeats, as `B,A`; None without any."""
        letters = _order(text, _FOUR if options is None else _letters(options))[0]
        return ",".join(letters) or None

    def paper(self, case: Case) -> Metrics:
        """NDCG with the ideal over the letters the reply names; pieces are not stripped, repeats are kept."""
        total, invalid = 0.0, 0
        for prediction, labels in zip(case.predictions, case.option_labels, strict=True):
            options = {chr(65 + i): GAINS[label] for i, label in enumerate(labels)}
            pieces = prediction.strip().split(",")
            gains = [options[piece[0]] for piece in pieces if piece and piece[0] in options]
            invalid += len(pieces) - len(gains)
            total += dcg(gains) / (dcg(sorted(gains, reverse=True)) + _PAPER_EPSILON)
        n = len(case.labels)
        return {"NDCG": total / n if n else float("nan"), "#invalid": invalid}

    def items(self, case: Case) -> Floats:
        """[n, 3]: NDCG over all options of the item, unreadable, readable but malformed."""
        rows = []
        for prediction, labels in zip(case.predictions, case.option_labels, strict=True):
            options = {chr(65 + i): GAINS[label] for i, label in enumerate(labels)}
            letters, clean = _order(prediction, _letters(labels))
            ideal = dcg(sorted(options.values(), reverse=True))
            score = dcg([options[x] for x in letters]) / ideal if ideal else 0.0
            malformed = bool(letters) and (not clean or len(letters) < len(options))
            rows.append((score, not letters, malformed))
        return np.asarray(rows, dtype=np.float64).reshape(-1, 3)

    def reduce(self, items: Floats) -> Metrics:
        """Mean NDCG over all items."""
        return {
            "NDCG": float(items[:, 0].mean()) if len(items) else 0.0,
            "n_invalid": int(items[:, 1].sum()),
            "n_malformed": int(items[:, 2].sum()),
            "n": len(items),
        }

    def parts(self, items: Floats) -> Floats:
        """[n, 1]: the item's own score."""
        return items[:, :1]

    def of_sums(self, sums: Floats, n: int, metric: str) -> Floats:
        """The mean of each selection."""
        return np.asarray(sums[:, 0] / max(1, n))


def _letters(labels: str) -> str:
    """The letters of a row's options, of which it has one for each relevance label."""
    return "".join(chr(65 + i) for i in range(len(labels)))


def _order(text: str, allowed: str) -> tuple[list[str], bool]:
    """Valid letters in order without repeats, and whether every piece was a new valid letter."""
    pieces = [piece.strip() for piece in re.split(",", first_line(text))]
    read = [letter(piece, allowed) for piece in pieces]
    letters = list(dict.fromkeys(x for x in read if x))
    return letters, len(letters) == len(pieces)
