"""Decoding for decoder-only models without padding: prompts as a packed tree, answers from slots.

Rows enter as others leave, so that a long answer does not hold up the queue. No text here and no tokenizer. The one
decision: a row's numbers depend on that row alone (its own positions, its own context, its own random stream), so in
float32 answers do not depend on what shares a pass with what, but for rounding in the last digits.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ecellm.model.attend import NAME, Pieces, Step, register
from ecellm.model.budget import Budget
from ecellm.model.decode import Ask, Ending, Tail, pick
from ecellm.model.pack import Chunk, Fan, chunks
from ecellm.model.slots import Slots
from ecellm.model.tree import Node, grow, saved_share

GRAIN = 16
"""Slots hold a multiple of this many tokens."""


class Packed:
    """A decoder-only model that goes through `attend`.

    Args:
        model: on its device, in evaluation mode. Its attention implementation is set here.
        ending: what ends an answer.
        budget: tokens of one pass and memory for slots.
        clock: seconds, by which the budget learns.
    """

    def __init__(
        self, model: Any, ending: Ending, budget: Budget, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        register()
        model.set_attn_implementation(NAME)
        self.model, self.ending, self.budget, self.clock = model, ending, budget, clock
        parameter = next(model.parameters())
        self.dtype, self.device = parameter.dtype, parameter.device
        self._narrow = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.asked, self.computed = 0, 0
        """Prompt tokens so far: in the prompts, and put through the model."""

    def answer(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Tail]]:
        """(index of the ask, its answer), each as soon as it is complete."""
        waiting = deque(sorted(range(len(asks)), key=lambda i: asks[i].prompt))
        if not waiting:
            return
        capacity = max(len(ask.prompt) + ask.limit for ask in asks)
        capacity += -capacity % GRAIN
        rows = self.budget.rows(capacity, len(asks))
        slots = Slots(rows, capacity, dtype=self.dtype, device=self.device)
        table = _Table(asks, slots, self.ending)
        while waiting or table.live:
            if waiting and len(table.live) <= rows // 2:
                entering = [waiting.popleft() for _ in range(min(len(waiting), rows - len(table.live)))]
                yield from self._enter(table, entering)
            if table.live:
                logits = self._step(table)
                yield from table.take(range(len(table.live)), logits)

    def score(
        self, prompts: Sequence[Sequence[int]], fans: Sequence[Fan]
    ) -> Iterator[tuple[int, Mapping[int, Tensor]]]:
        """(prompt, {token of its fan: log-probabilities [vocab] of what follows it}); token -1 is the prompt's last."""
        nodes = self._grown(prompts)
        gathered: dict[int, dict[int, Tensor]] = {}
        for chunk, logits in self._passes(nodes, fans=dict(enumerate(fans))):
            likely = torch.log_softmax(logits.float(), dim=-1)
            for (prompt, token), line in zip(chunk.owners, likely, strict=True):
                gathered.setdefault(prompt, {})[token] = line
            yield from gathered.items()  # a leaf is never cut, so its fan came with it
            gathered = {}

    def _enter(self, table: _Table, entering: list[int]) -> Iterator[tuple[int, Tail]]:
        nodes = self._grown([table.asks[i].prompt for i in entering])
        # Rows of similar length lie side by side, so that a bucket has little padding.
        by_length = sorted(range(len(entering)), key=lambda k: len(table.asks[entering[k]].prompt))
        first = len(table.live)
        slots = {k: first + place for place, k in enumerate(by_length)}
        table.enter([entering[k] for k in by_length])
        found: list[Tensor | None] = [None] * len(entering)
        for chunk, logits in self._passes(nodes, slots=slots, into=table.slots):
            for (k, _), line in zip(chunk.owners, logits, strict=True):
                found[slots[k] - first] = line
        lines = torch.stack([line for line in found if line is not None])
        yield from table.take(range(first, len(table.live)), lines)

    def _grown(self, prompts: Sequence[Sequence[int]]) -> list[Node]:
        nodes = grow(prompts)
        asked = sum(len(prompt) for prompt in prompts)
        self.asked += asked
        self.computed += round(asked * (1 - saved_share(prompts, nodes)))
        return nodes

    def _passes(
        self,
        nodes: list[Node],
        *,
        slots: Mapping[int, int] | None = None,
        fans: Mapping[int, Fan] | None = None,
        into: Slots | None = None,
    ) -> Iterator[tuple[Chunk, Tensor]]:
        """Each chunk with its wanted logits [wanted, vocab]."""
        rows = chunks(nodes, self.budget.tokens, slots=slots, fans=fans, dtype=self.dtype, device=self.device)
        for chunk in rows:
            begun = self.clock()
            logits = self._pass(chunk, into)
            self.budget.saw(len(chunk.ids), self.clock() - begun)
            yield chunk, logits

    @torch.inference_mode()
    def _pass(self, chunk: Chunk, into: Slots | None) -> Tensor:
        keep = torch.tensor(chunk.keep, device=self.device, dtype=torch.long)
        out = self.model(
            input_ids=torch.tensor([chunk.ids], device=self.device),
            position_ids=torch.tensor([chunk.positions], device=self.device),
            use_cache=False,
            work=Pieces(chunk.pieces, into),
            **({"logits_to_keep": keep} if self._narrow else {}),
        )
        logits: Tensor = out.logits[0]
        return logits if self._narrow else logits[keep]

    @torch.inference_mode()
    def _step(self, table: _Table) -> Tensor:
        """Logits [live, vocab] after the newest token of each live row."""
        rows = len(table.live)
        out = self.model(
            input_ids=torch.tensor(table.newest, device=self.device)[:, None],
            position_ids=torch.tensor(table.slots.lengths[:rows], device=self.device)[:, None],
            use_cache=False,
            work=Step(table.slots, rows),
        )
        for row in range(rows):
            table.slots.lengths[row] += 1
        logits: Tensor = out.logits[:, 0]
        return logits


class _Table:
    """Who sits in which slot, and what each has said so far."""

    def __init__(self, asks: Sequence[Ask], slots: Slots, ending: Ending) -> None:
        self.asks, self.slots, self.ending = asks, slots, ending
        self.live: list[int] = []
        """Ask of each live row."""
        self.newest: list[int] = []
        """Newest token of each live row, not yet put through the model."""
        self.tails: dict[int, Tail] = {}
        self.draws: dict[int, torch.Generator] = {}

    def enter(self, entering: Sequence[int]) -> None:
        """Rows take the next slots, in this order."""
        for index in entering:
            ask = self.asks[index]
            self.slots.lengths[len(self.live)] = len(ask.prompt)
            self.live.append(index)
            self.newest.append(-1)
            self.tails[index] = Tail(guide=ask.guide() if ask.guide else None)
            if ask.seed is not None:
                self.draws[index] = torch.Generator().manual_seed(ask.seed)

    def take(self, rows: range, logits: Tensor) -> Iterator[tuple[int, Tail]]:
        """Choose a token for each of these rows from logits [rows, vocab]; rows that have ended leave."""
        here = [self.live[row] for row in rows]
        tails = [self.tails[i] for i in here]
        tokens = pick(logits, tails, [self.draws.get(i) for i in here])
        leaving = []
        for row, index, token in zip(rows, here, tokens, strict=True):
            if self.ending.ends(self.tails[index], token, self.asks[index]):
                leaving.append(row)
            else:
                self.newest[row] = token
        for row in reversed(leaving):  # from the end, so that the last live row is never one that leaves
            index, last = self.live[row], len(self.live) - 1
            if row != last:
                self.slots.move(last, row)
                self.live[row], self.newest[row] = self.live[last], self.newest[last]
            self.live.pop()
            self.newest.pop()
            self.draws.pop(index, None)
            yield index, self.tails.pop(index)
