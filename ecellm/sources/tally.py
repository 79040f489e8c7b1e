"""What a reader did with each line of one raw file. Not a log: it keeps counts and the first few faults.

A broken line is counted and left out, never guessed at; more than the allowed share of them fails the build, since the
file is then another one than we took it for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ecellm.errors import DataError

SHOWN = 5
"""Faults kept with their line number and reason."""


@dataclass(slots=True)
class Tally:
    """Counts of one file: `lines` met = `used` for at least one record + `bad` given up on + `skipped`.

    `skipped` lines are whole and gave no record: of another category than the run file asks for, stated before, or
    left out by the rule of their format.
    """

    location: str
    lines: int = 0
    used: int = 0
    bad: int = 0
    skipped: int = 0
    faults: list[str] = field(default_factory=list)
    """The first faults, as `FILE, line 412: reason`."""

    def good(self) -> None:
        """Count a line that gave a record."""
        self.used += 1

    def skip(self) -> None:
        """Count a line that is whole and gave no record."""
        self.skipped += 1

    def unused(self, lines: int) -> None:
        """Of the lines that were counted as good, so many gave no record after all."""
        self.used, self.skipped = self.used - lines, self.skipped + lines

    def add(self, lines: int, used: int, bad: int, skipped: int, faults: list[str]) -> None:
        """Take in the counts of a piece of the file, pieces in order."""
        self.lines, self.used, self.bad = self.lines + lines, self.used + used, self.bad + bad
        self.skipped += skipped
        self.faults.extend(faults[: SHOWN - len(self.faults)])

    def facts(self) -> dict[str, object]:
        """For the data card."""
        return {
            "lines": self.lines,
            "used": self.used,
            "bad": self.bad,
            "skipped": self.skipped,
            "first_faults": list(self.faults),
        }

    def reject(self, line: int, reason: str, location: str = "") -> None:
        """Count a broken line (1-based number), of `location` where one reader reads two files."""
        self.bad += 1
        if len(self.faults) < SHOWN:
            name = (location or self.location).rpartition("/")[2]  # no folder of this machine goes into the data card
            self.faults.append(f"{name}, line {line}: {reason}")

    def check(self, max_bad_share: float) -> None:
        """Raise DataError where more than this share of the lines was broken, or there was nothing at all."""
        if self.lines == 0:
            raise DataError(
                f"{self.location}: nothing in it",
                found="no data line",
                expected="at least one",
                mend="fetch the file again, or take it out of sources.files",
            )
        if self.bad > max_bad_share * self.lines:
            raise DataError(
                f"{self.location}: too many broken lines",
                found=f"{self.bad} of {self.lines}; first: " + "; ".join(self.faults),
                expected=f"at most {max_bad_share:.0%} (sources.max_bad_share)",
                mend="check `format` of this file in the run file, or fetch the file again",
            )
