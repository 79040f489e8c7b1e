"""Each task's wording: one base instruction, five others, the options. Ours; package data, one TOML file a task.

`unseen` is the number of the one that no training row carries; the spec's numbers (B.0) are kept for the day the
authors' sentences stand in these files.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

OTHERS = 5


@dataclass(frozen=True, slots=True)
class Wording:
    """Instructions of one task: `seen` are the five of the Diverse setting."""

    base: str
    others: tuple[str, ...]
    unseen_index: int
    options: tuple[str, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """The others without the unseen one, then the base."""
        return (*(text for i, text in enumerate(self.others) if i != self.unseen_index), self.base)

    @property
    def unseen(self) -> str:
        """The instruction of the Unseen setting."""
        return self.others[self.unseen_index]


@cache
def wording(task: str) -> Wording:
    """The wording of a task id. The files are checked by a test, not here."""
    text = files("ecellm.ecinstruct").joinpath("instructions", f"{task.lower()}.toml").read_text("utf-8")
    said = tomllib.loads(text)
    return Wording(said["base"], tuple(said["others"]), said["unseen"], tuple(said.get("options", ())))
