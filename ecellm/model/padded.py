"""Decoding with padding: for encoder-decoder models, and for decoders whose attention `attend` does not serve.

The plain way: rows of similar length share a batch behind left padding, rows that have ended leave it. Slower than
`packed`, and for every model that transformers can generate with. Each row's numbers depend on that row alone, as
there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ecellm.model.budget import Budget
from ecellm.model.decode import Ask, Ending, Tail, pick
from ecellm.model.pack import Fan

Step = Callable[[Tensor | None, Tensor | None], Tensor]
"""(tokens of the last step [live, 1] or None, rows that stay or None) -> logits [live, vocab]."""


class Padded:
    """Any model on its device, in evaluation mode."""

    def __init__(self, model: Any, ending: Ending, budget: Budget, pad_id: int) -> None:
        self.model, self.ending, self.budget, self.pad_id = model, ending, budget, pad_id
        self.device = next(model.parameters()).device
        self.asked, self.computed = 0, 0
        """Prompt tokens so far: in the prompts, and put through the model (padding included)."""

    def answer(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Tail]]:
        """(index of the ask, its answer), batch by batch."""
        for batch in self._batches([(len(ask.prompt), ask.limit) for ask in asks]):
            yield from zip(batch, self._decode([asks[i] for i in batch]), strict=True)

    def score(
        self, prompts: Sequence[Sequence[int]], fans: Sequence[Fan]
    ) -> Iterator[tuple[int, Mapping[int, Tensor]]]:
        """(prompt, {token of its fan: log-probabilities [vocab] of what follows it}); token -1 is the prompt's last.

        Every way through a fan is a row of its own here.
        """
        for number, (prompt, fan) in enumerate(zip(prompts, fans, strict=True)):
            yield number, self._likelihoods(prompt, fan)

    def _batches(self, sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
        """Indices of (prompt, limit) in batches of similar size within the budget's tokens."""
        order = sorted(range(len(sizes)), key=lambda i: (-sizes[i][1], -sizes[i][0], i))
        current: list[int] = []
        for i in order:
            width = max(sizes[k][0] for k in (*current, i))
            full = len(current) + 1 > self.budget.rows(sum(sizes[current[0]]) if current else 1, len(sizes))
            other = bool(current) and sizes[current[0]][1] > 4 * sizes[i][1]
            if current and (full or other or width * (len(current) + 1) > 4 * self.budget.tokens):
                yield current
                current = []
            current.append(i)
        if current:
            yield current

    @torch.inference_mode()
    def _decode(self, asks: Sequence[Ask]) -> list[Tail]:
        prompts = [ask.prompt for ask in asks]
        self.asked += sum(map(len, prompts))
        self.computed += len(prompts) * max(map(len, prompts))
        draws = [None if ask.seed is None else torch.Generator().manual_seed(ask.seed) for ask in asks]
        tails = [Tail(guide=ask.guide() if ask.guide else None) for ask in asks]
        step = self._start(prompts)
        live = list(range(len(asks)))
        kept: Tensor | None = None
        tokens: Tensor | None = None
        done: set[int] = set()
        while live:
            chosen = pick(step(tokens, kept).float(), [tails[row] for row in live], [draws[row] for row in live])
            for row, token in zip(live, chosen, strict=True):
                if row not in done and self.ending.ends(tails[row], token, asks[row]):
                    done.add(row)
            kept, tokens = None, torch.tensor(chosen, device=self.device).unsqueeze(1)
            going = [i for i, row in enumerate(live) if row not in done]
            # Leaving costs a copy of the cache, so wait until a quarter of the rows is done.
            if not going or len(going) <= 0.75 * len(live):
                kept = torch.tensor(going, device=self.device, dtype=torch.long)
                tokens = tokens[kept]
                live = [live[i] for i in going]
        return tails

    @torch.inference_mode()
    def _likelihoods(self, prompt: Sequence[int], fan: Fan) -> dict[int, Tensor]:
        wanted = range(-1, len(fan.tokens))
        ways = [_way(fan, token) for token in wanted]
        self.asked += len(prompt)
        self.computed += len(prompt) * len(ways)
        if self.model.config.is_encoder_decoder:
            rows = [[fan.tokens[i] for i in way] for way in ways]
            ids, _ = _padded([[self.model.config.decoder_start_token_id, *row] for row in rows], self.pad_id, "right")
            source = torch.tensor([list(prompt)] * len(ways), device=self.device)
            logits = self.model(
                input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=ids.to(self.device)
            ).logits
            lines = [logits[k, len(row)] for k, row in enumerate(rows)]
        else:
            rows = [[*prompt, *(fan.tokens[i] for i in way)] for way in ways]
            ids, mask = _padded(rows, self.pad_id, "right")
            logits = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).logits
            lines = [logits[k, len(row) - 1] for k, row in enumerate(rows)]
        likely = torch.log_softmax(torch.stack(lines).float(), dim=-1)
        return dict(zip(wanted, likely, strict=True))

    def _start(self, prompts: Sequence[Sequence[int]]) -> Step:
        ids, mask = (part.to(self.device) for part in _padded(prompts, self.pad_id, "left"))
        start = _encoder_decoder if self.model.config.is_encoder_decoder else _decoder_only
        return start(self.model, ids, mask)


def _way(fan: Fan, token: int) -> list[int]:
    """Tokens of the fan from the prompt down to this one, it included."""
    found: list[int] = []
    while token >= 0:
        found.append(token)
        token = fan.parents[token]
    return found[::-1]


def _padded(rows: Sequence[Sequence[int]], pad_id: int, side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask, [batch, seq] both."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, place] = torch.tensor(list(row), dtype=torch.long)
        mask[i, place] = 1
    return ids, mask


def _decoder_only(model: Any, ids: Tensor, mask: Tensor) -> Step:
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


def _encoder_decoder(model: Any, ids: Tensor, mask: Tensor) -> Step:
    # T5 counts positions by distance, so padding may stand on the left here too.
    states: Tensor = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    past: Any = None

    def step(tokens: Tensor | None, kept: Tensor | None) -> Tensor:
        nonlocal mask, states, past
        if kept is not None:
            past.batch_select_indices(kept)
            mask, states = mask[kept], states[kept]
        if tokens is None:
            tokens = torch.full((len(ids), 1), model.config.decoder_start_token_id, device=ids.device)
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
