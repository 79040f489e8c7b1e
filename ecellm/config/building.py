"""The run file's settings of the data: where raw records come from, and how rows are built of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ecellm.config.mends import Mends
from ecellm.config.section import TASK_IDS, Count, Location, Section, Share, TaskId

SourceFormat = Literal[
    "amazon_google", "amazon_reviews", "amazon_metadata", "amazon_ratings", "mave", "esci", "amazonqa",
    "ae_jsonl", "esci_csv", "esci_vespa", "esci_exact", "amazon_qa_literal", "subjqa", "epqa", "hetpqa_answers",
    "hetpqa_evidence",
]  # fmt: skip


class SourceFile(Section):
    """One raw file or folder to read."""

    format: SourceFormat
    """How to read it."""
    path: Location
    """File or folder, relative to `sources.root` unless absolute, s3:// or http(s)://."""
    category: str = ""
    """Product category, where the file does not say it."""
    domain: Literal["IND", "OOD"] = "IND"
    """Whether its products are in-domain or held out of training."""
    split: Literal["", "train", "val", "test"] = ""
    """The source's own split, where it has one file for each."""
    tasks: tuple[TaskId, ...] = ()
    """Tasks that may use it; empty: every task that can read its records."""


class MadeUp(Section):
    """The made-up marketplace: raw files in the formats of the real sources, invented and labelled so."""

    products: int = Field(default=2000, ge=200)
    """Products over all categories; each of the 40 types needs a few."""
    users: Count = 1500
    """Reviewers."""
    queries: Count = 800
    """Search queries, each with judged products."""
    questions: Count = 3000
    """Product questions."""
    noise: Share = 0.05
    """Share of records with a fault: missing field, foreign text, near-duplicate, broken line."""


class Sources(Section):
    """Where raw data comes from: files, the published data set, or made up."""

    root: Location = "."
    """Folder or s3:// prefix that relative paths start from."""
    files: tuple[SourceFile, ...] = ()
    """Raw files of the six sources, or their stand-ins."""
    published: str = ""
    """The published `dataset.json`: a file, s3://, http(s)://, or a data set's hub name or folder; nothing is built."""
    made_up: MadeUp | None = None
    """Invent the raw files first."""
    max_bad_share: Share = 0.05
    """Largest share of lines of one file that a reader may give up on."""


class Sizes(Section):
    """Samples for each task (spec A.4)."""

    train: Count = 10_000
    """Rows to learn from."""
    val: Count = 1_000
    """Rows for the validation loss."""
    test: Count = 1_000
    """In-domain test rows."""
    ood: Count = 1_000
    """Out-of-domain test rows, for tasks that have such a set."""


class Build(Section):
    """Raw sources to instruction rows."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    """Tasks to build."""
    recipe: Literal["sound", "paper"] = "sound"
    """`paper`: the authors' construction (spec B); `sound`: the same tasks with its faults mended."""
    mends: Mends = Mends()
    """Single mends on or off, whatever the recipe."""
    sizes: Sizes = Sizes()
    """Most samples a task may have; fewer are used where the source has fewer, and the card says so."""
    task_sizes: dict[TaskId, Sizes] = Field(default_factory=dict)
    """Other sizes for some tasks."""
    negatives: Literal["auto", "random", "hard"] = "auto"
    """Negative pairs of PM and candidates of SR: `hard` ones look alike; `auto`: hard in `sound`, random in `paper`."""
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of products, users or queries that is kept for the test, where a source states no splits (paper: 0.1)."""
    val_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """The same for validation (paper: 0.1)."""
    class_balance: Share | None = None
    """Training samples of tasks with a few classes (`sound`): 0 draws them as found, 1 the same number of each class,
    between them a class of n samples counts as n to the power of 1 - class_balance. Absent: 0.5 in `sound`."""
    task_class_balance: dict[TaskId, Share] = Field(default_factory=dict)
    """Another balance for some tasks."""
    description_words: Count = 50
    """Longest product description of PM, in words (paper: 50)."""
    item_words: Count = 25
    """Longest text of one item of SR, in words (paper: 25)."""
    max_words: Count = 400
    """Longest document (AP, AG) or review (SA) in words; the rest is cut, never the answer."""
    near_duplicates: Share | None = None
    """Inputs whose three-word shingles overlap by this much (Jaccard) are near-duplicates; `sound` keeps one in a split
    and none in two. Absent: 0.9 in `sound`; 0: they stay, and are counted."""
    language: bool | None = None
    """Leave out what a language model says is not English; absent: as the recipe and the task have it."""
    wording: str = ""
    """Instructions: empty for our own; a folder of TASK.toml files; or a published dataset.json to take them from."""
    workers: int = Field(default=0, ge=0)
    """Processes; 0: one for small sources, else all cores of the machine or cluster. Rows are the same for any."""
    scratch: str = ""
    """Where big builds keep their sorted parts: a folder or s3:// prefix that all workers see; empty: with the rows."""
