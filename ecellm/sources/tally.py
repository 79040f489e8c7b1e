"""What became of the lines of one source: how many, how many used, which could not be and why.

Not a log. A reader gives up on a line, never in silence: the first ones stay with file and line number, and a source
with too many of them is refused.
"""

from __future__ import annotations

from collections import Counter

from ecellm.errors import DataError


class Tally:
    """Counts for one source, named `source` in messages (never a temporary path)."""

    def __init__(self, source: str, keep: int = 5) -> None:
        self.source, self.keep = source, keep
        self.lines = self.used = self.bad = 0
        self.reasons: Counter[str] = Counter()
        self.first: list[tuple[str, int, str]] = []
        """(file, line, reason) of the first `keep` bad lines."""

    def good(self) -> None:
        """One line was read and used."""
        self.lines += 1
        self.used += 1

    def reject(self, line: int, reason: str, file: str = "") -> None:
        """One line could not be used. `line` counts from 1; for Parquet it is the row."""
        self.lines += 1
        self.bad += 1
        self.reasons[reason] += 1
        if len(self.first) < self.keep:
            self.first.append((file or self.source, line, reason))

    def check(self, max_bad_share: float) -> None:
        """Raise DataError for a source with no line, no usable line, or more than `max_bad_share` unusable ones."""
        if self.used and self.bad <= max_bad_share * self.lines:
            return
        if not self.lines:
            raise DataError(
                f"{self.source}: empty",
                found="no lines",
                expected="records",
                mend="get the file again",
            )
        where = "; ".join(
            f"{file} line {line}: {reason}" for file, line, reason in self.first
        )
        raise DataError(
            f"{self.source}: too many lines cannot be used",
            found=f"{self.bad} of {self.lines} lines. First ones: {where}",
            expected=f"at most {max_bad_share:.1%} of the lines (sources.max_bad_share)",
            mend="check the file and its format in the run file, get it again, or raise sources.max_bad_share",
        )

    def facts(self) -> dict[str, object]:
        """For the data card."""
        first = [f"{file} line {line}: {reason}" for file, line, reason in self.first]
        return {"lines": self.lines, "used": self.used, "bad": self.bad, "reasons": dict(sorted(self.reasons.items())),
                "first_bad": first}  # fmt: skip
