"""What a reader yields: the six sources' nouns, free of their file formats. Readers never pass on reviewer names.

`line` is the line or row of the file that a record came from, from 1; 0 where it came from several.
"""

from __future__ import annotations

from typing import NamedTuple


class CatalogueItem(NamedTuple):
    """A product of one side of Amazon-Google. Missing text is None."""

    catalogue: str
    """`amazon` or `google`."""
    id: str
    title: str
    description: str | None
    manufacturer: str | None
    price: str | None
    line: int = 0


class Match(NamedTuple):
    """Two catalogue entries that are the same product."""

    amazon: str
    google: str
    line: int = 0


class Product(NamedTuple):
    """Amazon Review metadata of one product, with its links to other products (their ids)."""

    id: str
    title: str
    group: str
    """The file's category, as `Electronics`."""
    domain: str
    """`IND` or `OOD`, from the run file."""
    category: tuple[str, ...]
    brand: str
    also_buy: tuple[str, ...]
    also_view: tuple[str, ...]
    similar: tuple[str, ...]
    line: int = 0
    old: bool = False
    """In the form of 2014."""
    similar_plain: tuple[str, ...] = ()
    """Ids of similar products where exactly one character stands between "asin" and the id, as the paper looked."""


class Review(NamedTuple):
    """One rating, with its text where the source has it (`text` is "" in ratings-only files)."""

    user: str
    product: str
    group: str
    domain: str
    rating: float
    text: str
    time: int
    """Unix seconds."""
    split: str = ""
    """`train`, `val` or `test` where the run file says so of the whole file."""
    line: int = 0


class Attributed(NamedTuple):
    """A product's texts and one attribute of it (MAVE). No evidence means that the texts do not state it."""

    id: str
    category: str
    paragraphs: tuple[tuple[str, str], ...]
    """(text, source) pairs; source is `title`, `description`, `feature`, `price` or `brand`."""
    attribute: str
    evidences: tuple[tuple[str, str], ...]
    """(value, source) pairs."""
    split: str
    """`train`, `val`, `test`, or "" where the source has no splits."""
    line: int = 0


class Judgement(NamedTuple):
    """How well a product answers a query (Shopping Queries, ESCI)."""

    example: str
    query: str
    product: str
    title: str
    """Empty where it is in another file."""
    label: str
    """`E` exact, `S` substitute, `C` complement, `I` irrelevant."""
    locale: str
    small: bool
    """Whether it is in the source's reduced version (QPR uses only that)."""
    split: str
    line: int = 0


class Question(NamedTuple):
    """A product question with review snippets and community answers (AmazonQA)."""

    id: str
    product: str
    category: str
    domain: str
    text: str
    descriptive: bool
    snippets: tuple[str, ...]
    answerable: bool | None
    """None where the source does not say."""
    answers: tuple[tuple[str, int, int], ...]
    """(text, helpful votes, all votes)."""
    split: str
    line: int = 0


class ListedProduct(NamedTuple):
    """The title of a product of Shopping Queries, to be joined to its judgements."""

    locale: str
    id: str
    title: str
    line: int = 0


SourceRecord = CatalogueItem | Match | Product | Review | Attributed | Judgement | ListedProduct | Question
