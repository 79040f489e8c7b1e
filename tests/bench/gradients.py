"""Gradients do not depend on how a global batch is cut.

Compared: the gradient of one optimizer step, worked out by our engine for every cut of a grid (ZeRO-3 on 1, 2 and 4
gloo ranks; padded with 1, 3 and 12 samples a micro-step; packed with 40, 90 and 400 tokens a row; head in pieces),
against the definition written again with the model's own padded forward pass over the whole batch at once. fp32,
Llama and T5, three weightings. Figure: largest ||g - g_whole|| / ||g_whole|| over all parameters.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch

from ecellm.records import World
from tests.bench._common import figure, say
from tests.train.ranks import run_ranks
from tests.train.test_loss import gradients, own_loss
from tests.train.toys import ToyTokens, toy_batches, toy_engine, toy_layout, toy_llama, toy_run, toy_t5

GOAL = 1e-5
NUMBERS = np.arange(24)
Cut = dict[str, Any]
CUTS: list[Cut] = [
    *({"pack_tokens": 0, "micro": micro} for micro in (1, 3, 12)),
    *({"pack_tokens": tokens} for tokens in (40, 90, 400)),
    {"pack_tokens": 90, "piece_tokens": 3},
]
T5_CUTS: list[Cut] = [{"micro": 1}, {"micro": 5}, {"micro": 12, "piece_tokens": 3}]
WEIGHTINGS = ("token", "sample", "task")


def run() -> Any:
    """The largest difference over the grid."""
    whole = {(t5, weighting): _whole(t5, weighting) for t5, weighting in product((False, True), WEIGHTINGS)}
    samples = []
    for size in (1, 2, 4):
        found = run_ranks(size, _grid)[0]
        for (t5, weighting, cut), gradient in found:
            wanted = whole[t5, weighting]
            apart = float((gradient - wanted).norm() / wanted.norm())
            samples.append({"ranks": size, "model": "t5" if t5 else "llama", "weighting": weighting, **cut,
                            "difference": apart})  # fmt: skip
        say(f"{size} ranks: largest difference {max(one['difference'] for one in samples):.2g}")
    worst = max(one["difference"] for one in samples)
    return figure(
        worst, "relative difference of gradients", versus=None, goal=f"at most {GOAL:g}", holds=worst <= GOAL,
        how=__doc__, cuts=len(samples), samples=samples,
    )  # fmt: skip


def _whole(t5: bool, weighting: str) -> torch.Tensor:
    model = toy_t5(tied=False) if t5 else toy_llama()
    layout = toy_layout(t5=t5, micro=len(NUMBERS), pack_tokens=0, weighting=weighting)
    [batch] = toy_batches(ToyTokens(len(NUMBERS)), NUMBERS, World(rank=0, size=1), layout)
    model.train()
    return gradients(model, own_loss(model, batch))


def _grid(world: World) -> list[tuple[tuple[bool, str, Cut], torch.Tensor]]:
    """Runs on every rank: the whole gradient of each cut."""
    from deepspeed.utils import safe_get_full_grad

    found = []
    for t5, weighting in product((False, True), WEIGHTINGS):
        engine = toy_engine("zero3", toy_run(), world, t5=t5, tied=not t5)
        for cut in T5_CUTS if t5 else CUTS:
            layout = toy_layout(t5=t5, weighting=weighting, **cut)
            engine.forward_backward(toy_batches(ToyTokens(len(NUMBERS)), NUMBERS, world, layout))
            parts = [safe_get_full_grad(p).flatten() for p in engine.model().parameters()]
            # ours are sums over ranks; the engine hands DeepSpeed the loss times the ranks, and it takes the mean
            found.append(((t5, weighting, cut), torch.cat(parts).cpu().clone()))
            engine.step(0.0)
    return found
