"""What a builder may look at of the run file: one task's recipe, with every mend and wording resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecellm.config.mends import Mended, Mends
from ecellm.config.schema import Build, Sizes, TaskId
from ecellm.ecinstruct.instructions import Wording, own_wording
from ecellm.ecinstruct.splits import SHARES, Shares, shares_of

CLASSIFIED: frozenset[str] = frozenset({"PRP", "PM", "SA", "MPC", "PSI", "AP"})
"""Tasks whose answer is one of a few classes."""
NO_OOD: frozenset[str] = frozenset({"PM", "MPC", "PSI", "QPR"})
"""Tasks that have no out-of-domain test (spec A.3)."""
ENGLISH: frozenset[str] = frozenset({"AVE", "SA", "MPC", "PSI", "QPR", "AP", "AG"})
"""Tasks whose texts are sentences or queries, so that a language model can tell their language."""
PAPER_ENGLISH: frozenset[str] = frozenset({"MPC", "PSI", "QPR"})
"""Tasks whose language the paper looks at (spec B.6)."""
BALANCE, NEAR = 0.5, 0.9
"""What `sound` does where the run file does not say: class balance, and the overlap of near-duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to build one task."""

    task: str = ""
    seed: int = 1
    paper: bool = False
    """The paper's draws; else draws by hash."""
    mends: Mended = field(default_factory=lambda: Mended.of("sound", Mends()))
    hard: bool = False
    max_words: int = 400
    item_words: int = 25
    description_words: int = 50
    balance: float = 0.0
    near: float = NEAR
    language: bool = True
    shares: Shares = field(default_factory=lambda: SHARES)
    sizes: Sizes = field(default_factory=Sizes)
    words: Wording = field(default_factory=lambda: own_wording("AG", 1))

    @classmethod
    def of(cls, build: Build, task: TaskId, seed: int, words: Wording) -> Recipe:
        """The recipe of one task."""
        paper = build.recipe == "paper"
        balance = build.task_class_balance.get(task, build.class_balance)
        english = PAPER_ENGLISH if paper else ENGLISH
        return cls(
            task=task, seed=seed, paper=paper, mends=Mended.of(build.recipe, build.mends),
            hard=build.negatives == "hard" or (build.negatives == "auto" and not paper),
            max_words=build.max_words, item_words=build.item_words, description_words=build.description_words,
            balance=0.0 if paper or task not in CLASSIFIED else BALANCE if balance is None else balance,
            near=0.0 if paper else NEAR if build.near_duplicates is None else build.near_duplicates,
            language=task in english if build.language is None else build.language and task in ENGLISH,
            shares=shares_of(build.test_share, build.val_share), sizes=build.task_sizes.get(task, build.sizes),
            words=words,
        )  # fmt: skip

    def size(self, pool: str) -> int:
        """Samples asked for in a pool."""
        return 0 if pool == "ood" and self.task in NO_OOD else int(getattr(self.sizes, pool))

    @property
    def asked(self) -> int:
        """Samples asked for in all pools."""
        return sum(self.size(pool) for pool in ("train", "val", "test", "ood"))
