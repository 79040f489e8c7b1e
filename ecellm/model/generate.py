"""A model folder that answers prompts in batches, on a CPU or a GPU.

Text in and out of `decode`: which tokens end an answer, how the answer's text is cut (spec C.3). It knows nothing of
tasks, rows or files of answers. A model whose generation config names no end token ends at the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ecellm.config.schema import Model
from ecellm.model.decode import decode
from ecellm.model.load import load_model, load_tokenizer, pick_attention, pick_dtype


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `tokens` are the new ones without the end token; `finish_reason` is `stop` or `length`."""

    text: str
    tokens: int
    finish_reason: str


class Generator:
    """One model, held in memory.

    Args:
        folder: local Hugging Face folder with config, weights and tokenizer.
        settings: dtype and attention are taken from here.
        device: `cpu`, `cuda`, `cuda:0`; empty: a GPU where there is one.
        separator: heading that stands before an answer; where a model writes it again, the answer ends.

    Raises CheckpointError where the folder has no model or tokenizer.
    """

    def __init__(self, folder: str, settings: Model, device: str = "", *, separator: str = "### Response:") -> None:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Recomputing activations serves training only, and switches the cache off.
        settings = settings.model_copy(update={"gradient_checkpointing": False})
        attention, _ = pick_attention(settings, place)
        dtype = getattr(torch, pick_dtype(settings, place))
        self.tokenizer: Any = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
        self.model: Any = load_model(folder, settings, dtype=dtype, attention=attention)
        self.model.to(place).eval()
        self.separator = separator
        self.end_ids = _end_ids(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else min(self.end_ids, default=0)

    def answer(
        self,
        prompt_ids: Sequence[Sequence[int]],
        max_new_tokens: int | Sequence[int],
        *,
        seeds: Sequence[int] | None = None,
    ) -> list[Reply]:
        """One reply for each prompt, in order.

        Args:
            prompt_ids: token ids of each prompt, as the encoder made them.
            max_new_tokens: one limit, or one for each prompt.
            seeds: None: greedy; else the paper's sampling, one seed for each prompt.
        """
        if not prompt_ids:
            return []
        limits = [max_new_tokens] * len(prompt_ids) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        tails = decode(self.model, prompt_ids, limits, end_ids=self.end_ids, pad_id=self.pad_id, seeds=seeds)
        return [
            Reply(self._text(tail.tokens), len(tail.tokens), "stop" if tail.stopped else "length") for tail in tails
        ]

    def _text(self, tokens: Sequence[int]) -> str:
        return cut(str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)), self.separator)


def cut(text: str, separator: str) -> str:
    """A reply up to the first recurrence of the response separator, without surrounding white space (spec C.3)."""
    return (text.split(separator, 1)[0] if separator else text).strip()


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    settings = getattr(model, "generation_config", None)
    found: set[int | None] = {tokenizer.eos_token_id}
    for value in (getattr(settings, "eos_token_id", None), getattr(model.config, "eos_token_id", None)):
        found.update(value if isinstance(value, list | tuple) else [value])
    return frozenset(int(value) for value in found if value is not None)
