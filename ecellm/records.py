"""The nouns of the project, frozen. No file, network, torch or Ray here."""

from __future__ import annotations

from dataclasses import dataclass

IND, OOD = "IND", "OOD"
KINDS = ("Single_Instruction", "Diverse_Instruction", "Unseen_Instruction", "Diverse_Instruction_1-shot")
SETTINGS = tuple(f"{domain}_{kind}" for domain in (IND, OOD) for kind in KINDS)
"""The eight values of the published `setting` column (ECInstruct)."""
SPLITS = ("train", "val", "test")
ROW_COLUMNS = (
    "split", "task", "setting", "instruction", "input", "options", "output", "few_shot_example",
    "id", "source", "option_labels",
)  # fmt: skip
"""Columns of a rows Parquet file: the eight published ones, then ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One instruction sample in one setting, as stored.

    `id` names the sample (task and content), so the same sample has the same id in every setting; (id, setting)
    is unique. `task` is the published name (`Product_Matching`). `options` is None for tasks without options.
    `option_labels` (QPR only) is a string of ESCI letters, one per option in option order, as `"ESI"`.
    """

    split: str
    task: str
    setting: str
    instruction: str
    input: str
    options: str | None
    output: str
    few_shot_example: str | None
    id: str
    source: str
    option_labels: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model said to one row. `parsed` is None when the text is no answer (strict rule)."""

    id: str
    prompt_sha256: str
    text: str
    parsed: str | None
    finish_reason: str
    tokens: int
    decoding: str = ""
    """How it was made, where a model made it."""
    shares: dict[str, float] | None = None
    """Of a choice: the probability of each possible answer among them."""


@dataclass(frozen=True, slots=True)
class World:
    """Where one training process stands: `rank` of `size`, the `local_rank`-th on its machine."""

    rank: int
    size: int
    local_rank: int = 0
