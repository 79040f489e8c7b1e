"""The mends of the `sound` recipe: what it does otherwise than the paper, each with its name and its reason.

Not the code that mends: builders ask `Mended` for a name. A name that is left out follows `build.recipe`; `true` or
`false` decides for itself, so that one fault can be mended, or kept, alone. The numbers are those of the faults in
`spec B.11`. What costs nothing and changes no distribution (evidence in order, no draw that hangs on a set's order or
on a directory's listing, literals never run as code, labels beside the rows) is always so and has no name here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Mends(BaseModel):
    """Each mend on or off; absent: as the recipe has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    disjoint_splits: bool | None = None
    """Splits share no product, user, query or question: what a test asks was else learnt by heart (P9, P12, P13, P15,
    P19). Off: samples are dealt one by one."""
    consistent_labels: bool | None = None
    """Inputs that read the same and have several answers are left out: no model can be right on all (P7)."""
    no_duplicates: bool | None = None
    """One of each input and answer: shops show a review under every variant of a product (P13)."""
    clean_text: bool | None = None
    """Markup, entities, page code and control characters leave titles, reviews, questions and documents (P11)."""
    json_text: bool | None = None
    """Inputs and options are JSON, a missing value is null: no `NaN` token, no Python lists (P8, P18)."""
    words_by_space: bool | None = None
    """Words are what any white space separates, so that double spaces and line ends do not miscount (P14)."""
    keep_direction: bool | None = None
    """PRP: the stated direction stays: who buys a camera buys a card, and not the other way round (P10)."""
    each_link: bool | None = None
    """PRP: a linked product without a title costs its own link, not all of the item's, and similar products are found
    whatever stands between "asin" and the id (P11)."""
    whole_files: bool | None = None
    """SA: reviews of the whole file, not of its first 200,000 lines, which know few products (P13)."""
    latest_items: bool | None = None
    """SR: the latest 50 purchases, not the earliest; a repeated purchase counts once, where it came last (P15)."""
    bar_history: bool | None = None
    """SR: nothing that was bought before is a candidate: it would be rejected too easily (P16)."""
    varied_rankings: bool | None = None
    """QPR: each list draws its own products and its length fits the query, so that pairs dominate less (P20)."""
    all_categories: bool | None = None
    """AP, AG: every in-domain category of the sources serves, not two for each task."""
    cut_documents: bool | None = None
    """AP, AG, SA: documents and reviews end after `max_words` words; the answer is never cut (P22)."""
    answerable_targets: bool | None = None
    """AG: an answer that says only that its writer does not know is no answer (P21)."""
    stratified: bool | None = None
    """Validation and test have each class as often as it is found, to the sample: both measure the same thing."""
    drawn_shots: bool | None = None
    """1-shot: the example is drawn for each row; else it is the training sample of the same index (P24)."""
    time_split: bool | None = None
    """SR: training ends before validation begins, and that before the test (P15). Off in both recipes: a user's last
    purchases are then lost for training."""
    clean_ood: bool | None = None
    """A category that is out of domain for one task trains no other (P23). Off in both recipes: the paper's AP learns
    from Tools, which PRP, SA and SR hold out."""


OFF = ("time_split", "clean_ood")
"""Off in both recipes: they cost more than they mend, and are there for who wants them."""


@dataclass(frozen=True, slots=True)
class Mended:
    """Every mend resolved."""

    disjoint_splits: bool
    consistent_labels: bool
    no_duplicates: bool
    clean_text: bool
    json_text: bool
    words_by_space: bool
    keep_direction: bool
    each_link: bool
    whole_files: bool
    latest_items: bool
    bar_history: bool
    varied_rankings: bool
    all_categories: bool
    cut_documents: bool
    answerable_targets: bool
    stratified: bool
    drawn_shots: bool
    time_split: bool
    clean_ood: bool

    @classmethod
    def of(cls, recipe: Literal["sound", "paper"], chosen: Mends) -> Mended:
        """The recipe's mends, with those that were chosen by name."""
        said = chosen.model_dump()
        return cls(**{name: (recipe == "sound" and name not in OFF) if value is None else value
                      for name, value in said.items()})  # fmt: skip

    def named(self) -> dict[str, bool]:
        """Name -> on or off."""
        return asdict(self)


TEXT_ONLY = frozenset({"clean_text", "json_text", "words_by_space", "keep_direction", "cut_documents", "drawn_shots",
                       "each_link", "whole_files", "latest_items", "bar_history", "all_categories",
                       "answerable_targets"})  # fmt: skip
"""Mends that leave the paper's draws as they are, so that its recipe may have them."""


def reasons() -> dict[str, str]:
    """Name -> why, in one line."""
    return {name: " ".join((field.description or "").split()) for name, field in Mends.model_fields.items()}
