"""One of twenty letters: SR (spec D.2)."""

from __future__ import annotations

import numpy as np

from ecellm.tasks.base import Case, Floats, Metrics

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRST")


class NextItem:
    """Rules of sequential recommendation: the reply is exactly one capital letter, A to T."""

    def parse(self, text: str, options: str | None = None, family: str = "") -> str | None:
        """The letter, or None; a letter followed by the item's text is no answer under either rule."""
        word = text.strip()
        return word if word in _LETTERS else None

    def paper(self, case: Case) -> Metrics:
        """Hit rate at 1 over the replies that can be read."""
        items = self.items(case)
        kept = items[items[:, 1] == 0]
        rate = float(kept[:, 0].mean()) if len(kept) else float("nan")
        return {"recall@1": rate, "#invalid": len(items) - len(kept)}

    def items(self, case: Case) -> Floats:
        """[n, 2]: right, unreadable."""
        said = [self.parse(p) for p in case.predictions]
        rows = [(s == g.strip(), s is None) for s, g in zip(said, case.labels, strict=True)]
        return np.asarray(rows, dtype=np.float64).reshape(-1, 2)

    def reduce(self, items: Floats) -> Metrics:
        """Hit rate at 1 over all items."""
        rate = float(items[:, 0].mean()) if len(items) else 0.0
        return {"recall@1": rate, "n_invalid": int(items[:, 1].sum()), "n": len(items)}

    def parts(self, items: Floats) -> Floats:
        """[n, 1]: the item's own score."""
        return items[:, :1]

    def of_sums(self, sums: Floats, n: int, metric: str) -> Floats:
        """The mean of each selection."""
        return np.asarray(sums[:, 0] / max(1, n))
