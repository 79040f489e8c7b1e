"""A sample: one input with its gold answer, before any instruction is chosen. Nothing here reads a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

POOLS = ("test", "ood", "val", "train")
"""In order of claim: what two pools could have goes to the first of them."""
SPLIT_OF = {"train": "train", "val": "val", "test": "test", "ood": "test"}
"""Pool -> the split of its rows."""


@dataclass(slots=True, kw_only=True)
class Sample:
    """One input with its gold answer.

    `entities` are the things that must not be in two splits, as `product:B00…` or `query:…`. `slot` names what the
    input asks for, where inputs that look alike may ask for different things (an attribute, a query).
    """

    task: str
    input: str
    output: str
    options: str | None = None
    option_labels: str | None = None
    entities: tuple[str, ...] = ()
    source: str = ""
    slot: str = ""

    @property
    def id(self) -> str:
        """16 hex digits of the content's sha256."""
        return sample_id(self.task, self.input, self.options, self.output)


def sample_id(task: str, input: str, options: str | None, output: str) -> str:
    """The id of a sample of task id `task`: the same in every setting."""
    text = "\x1f".join((task, input, options or "", output))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
