"""A build as a value that travels to workers: what to read, how to build it, where its parts go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ecellm.config.schema import SourceFile
from ecellm.config.schema import Storage as Settings
from ecellm.ecinstruct.recipe import Recipe
from ecellm.sources.read import Part

PART_BYTES = 128 << 20
"""Raw bytes for one part of a table: what one worker holds at a time is some times that."""
MOST_PARTS = 512
PIECE_BYTES, MOST_PIECE_BYTES, PIECES = 8 << 20, 64 << 20, 2000
"""A piece of a raw file is 8 MiB, more where there would be over 2,000 of them, 64 MiB at most."""


@dataclass(frozen=True, slots=True)
class Use:
    """How one entry of the run file uses a file."""

    category: str
    domain: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Feed:
    """One raw file, read once for all its uses."""

    number: int
    label: str
    source: SourceFile
    part: Part
    uses: tuple[Use, ...]
    held: tuple[str, ...] = ()
    """Categories that train nothing, under the mend `clean_ood`."""

    @property
    def tasks(self) -> frozenset[str]:
        """Tasks that any entry gives it to."""
        return frozenset(task for use in self.uses for task in use.tasks)


@dataclass(frozen=True, slots=True)
class Job:
    """A build."""

    scratch: str
    out: str
    storage: Settings
    feeds: tuple[Feed, ...]
    recipes: Mapping[str, Recipe]
    parts: int
    piece_bytes: int
    families: tuple[str, ...]
    """Families to build, by name."""

    @classmethod
    def sizes(cls, raw_bytes: int) -> tuple[int, int]:
        """(parts, bytes of a piece) for so many raw bytes."""
        parts = max(1, min(MOST_PARTS, -(-raw_bytes // PART_BYTES)))
        return parts, max(PIECE_BYTES, min(MOST_PIECE_BYTES, raw_bytes // PIECES))
