"""What benchmarks share: models of known size, ECInstruct-like lengths, results. Not a benchmark."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ecellm.model.attention import VARLEN, register

TASKS = {  # prompt tokens (median, spread) and answer tokens of each task, as prepared rows of the ten tasks have them
    "AVE": (210, 0.45, 26), "PRP": (140, 0.12, 2), "PM": (185, 0.20, 2), "SA": (150, 0.55, 5), "SR": (620, 0.35, 2),
    "MPC": (160, 0.15, 9), "PSI": (122, 0.12, 2), "QPR": (155, 0.25, 5), "AP": (330, 0.60, 2), "AG": (320, 0.60, 30),
}  # fmt: skip


def say(text: str) -> None:
    """A line of progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def figure(value: float, unit: str, *, versus: float | None, goal: str, holds: bool, how: str, **more: Any) -> Any:
    """The result of a benchmark, as its contract says."""
    return {"figure": value, "unit": unit, "versus": versus, "goal": goal, "holds": bool(holds), **more, "how": how}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, median, most."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


@dataclass(frozen=True)
class MadeTokens:
    """Token samples of ECInstruct-like lengths, made up. Stands for `data.shards.TokenSet`."""

    n: int
    vocabulary: int
    longest: int = 2048
    fingerprint: str = "made up"
    _lengths: tuple[np.ndarray, np.ndarray, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        draw = random.Random(7)
        prompts, answers, tasks = [], [], []
        for _ in range(self.n):
            task = draw.choice(list(TASKS))
            median, width, answer = TASKS[task]
            tasks.append(list(TASKS).index(task))
            answers.append(max(1, round(answer * draw.lognormvariate(0, 0.3))))
            prompts.append(min(self.longest - answers[-1], max(60, round(median * draw.lognormvariate(0, width)))))
        arrays = tuple(np.array(values, dtype=np.int32) for values in (prompts, answers, tasks))
        object.__setattr__(self, "_lengths", arrays)

    @property
    def prompt_lengths(self) -> np.ndarray:
        return self._lengths[0]

    @property
    def answer_lengths(self) -> np.ndarray:
        return self._lengths[1]

    @property
    def tasks(self) -> np.ndarray:
        return self._lengths[2]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"sample-{i}" for i in range(self.n))

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(i)
        whole = draw.integers(3, self.vocabulary, self.prompt_lengths[i] + self.answer_lengths[i]).astype(np.int32)
        return whole[: self.prompt_lengths[i]], whole[self.prompt_lengths[i] :]


def llama(*, hidden: int, layers: int, heads: int, vocabulary: int, varlen: bool = True) -> LlamaForCausalLM:
    """A Llama from random weights, the same at every call."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=hidden * 8 // 3 // 8 * 8,
            num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=max(1, heads // 2),
            max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
        )
    )  # fmt: skip
    if varlen:
        register()
        model.set_attn_implementation(VARLEN)
    return model
