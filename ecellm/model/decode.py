"""The decode loop: token ids in, new token ids out, for decoder-only and encoder-decoder models.

Not `generate` of transformers: rows have their own limits and their own random numbers, and rows that have ended leave
the batch, so that a long answer does not make the short ones wait. No text here, no tokenizer.

The one decision to know: each row's choice depends on that row alone (left padding behind a mask, positions that start
at the row's first token, one random stream for each row), so that in float32 the answers do not depend on what shares
a batch with what.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

TEMPERATURE, TOP_P = 0.15, 0.95
"""The paper's sampling (spec C.6)."""


@dataclass(slots=True)
class Tail:
    """New tokens of one row, without the end token; `stopped` when the model ended by itself."""

    tokens: list[int] = field(default_factory=list)
    stopped: bool = False


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    end_ids: frozenset[int],
    pad_id: int,
    seeds: Sequence[int] | None = None,
) -> list[Tail]:
    """New tokens for each prompt: greedy, or the paper's sampling with one seed for each prompt.

    Args:
        prompts: token ids, none empty.
        limits: most new tokens of each prompt.
        end_ids: tokens that end an answer.
        seeds: None: take the likeliest token; ties go to the lowest id.
    """
    device = next(model.parameters()).device
    draws = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
    tails = [Tail() for _ in prompts]
    with torch.inference_mode():
        start = _encoder_decoder if model.config.is_encoder_decoder else _decoder_only
        step = start(model, prompts, pad_id, device)
        live = list(range(len(prompts)))
        kept: Tensor | None = None
        tokens: Tensor | None = None
        while live:
            logits = step(tokens, kept).float()  # [live, vocab]
            chosen = logits.argmax(dim=-1) if draws is None else _sample(logits, [draws[row] for row in live])
            values = chosen.tolist()
            going = [i for i, row in enumerate(live) if not _ended(tails[row], values[i], limits[row], end_ids)]
            # Leaving costs a copy of the cache, so wait until a quarter of the rows is done.
            kept, tokens = None, chosen.unsqueeze(1)
            if not going:
                break
            if len(going) <= 0.75 * len(live):
                kept = torch.tensor(going, device=device)
                tokens = tokens[kept]
                live = [live[i] for i in going]
    return tails


def _ended(tail: Tail, token: int, limit: int, end_ids: frozenset[int]) -> bool:
    if tail.stopped or len(tail.tokens) >= limit:
        return True
    if token in end_ids:
        tail.stopped = True
        return True
    tail.tokens.append(token)
    return len(tail.tokens) >= limit


def _sample(logits: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Nucleus sampling: one number from each row's own generator, looked up in its cut distribution. [live]"""
    shares, order = torch.softmax(logits / TEMPERATURE, dim=-1).sort(dim=-1, descending=True, stable=True)
    before = shares.cumsum(dim=-1) - shares
    shares = shares.masked_fill(before >= TOP_P, 0.0)
    edges = shares.cumsum(dim=-1)
    numbers = torch.cat([torch.rand(1, generator=draw) for draw in draws]).to(logits.device)
    place = torch.searchsorted(edges, (numbers * edges[:, -1]).unsqueeze(1), right=True)
    place = place.clamp(max=logits.shape[-1] - 1)
    return order.gather(1, place).squeeze(1)


def _padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, left padded. [batch, seq] both."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
        mask[i, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


Step = Callable[[Tensor | None, Tensor | None], Tensor]
"""(tokens of the last step [live, 1] or None, rows that stay or None) -> logits [live, vocab]."""


def _decoder_only(model: Any, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Step:
    ids, mask = _padded(prompts, pad_id, device)
    only_last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    positions: Tensor = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    past: Any = None

    def step(tokens: Tensor | None, kept: Tensor | None) -> Tensor:
        nonlocal mask, positions, past
        if kept is not None:
            past.batch_select_indices(kept)
            mask, positions = mask[kept], positions[kept]
        if tokens is not None:
            mask = torch.cat([mask, mask.new_ones((mask.shape[0], 1))], dim=1)
            positions = positions[:, -1:] + 1
        out = model(
            input_ids=ids if tokens is None else tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            **only_last,
        )
        past = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits

    return step


def _encoder_decoder(model: Any, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Step:
    ids, mask = _padded(prompts, pad_id, device)
    # T5 counts positions by distance, so padding may stand on the left here too.
    states: Tensor = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    past: Any = None

    def step(tokens: Tensor | None, kept: Tensor | None) -> Tensor:
        nonlocal mask, states, past
        if kept is not None:
            past.batch_select_indices(kept)
            mask, states = mask[kept], states[kept]
        if tokens is None:
            tokens = torch.full((len(prompts), 1), model.config.decoder_start_token_id, device=device)
        out = model(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=tokens,
            past_key_values=past,
            use_cache=True,
        )
        past = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits

    return step
