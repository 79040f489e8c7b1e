"""Samples that share a packed row do not see each other.

Compared: logits of each of three samples in one row before and after each of the others is changed, and the logits
that a sample has alone, for every attention that runs on this machine and four kinds of models, fp32. Figure: the
largest change, beside the largest logit (or 1). Beside it, as `versus`: the same row under sdpa when the caller keeps
a cache (`use_cache=True`), where transformers makes no block mask and samples do leak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from ecellm.data.batch import Batch, collate_packed
from ecellm.model.attention import register
from ecellm.train.checks import difference
from tests.bench._common import figure, say
from tests.train.toys import toy_run

GOAL = 1e-5
VOCABULARY = 211
LENGTHS = (37, 12, 64)
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)),
    "mistral, window 16": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=16)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=256)),
}
ATTENTIONS = ("sdpa_varlen", "sdpa", "eager", "flex_attention")
MAY_LACK = ("flex_attention",)
"""What need not run on a CPU, and is refused there; anything else that does not run fails the benchmark."""


def run() -> Any:
    """The largest change over models and attentions."""
    register()
    samples = []
    for name, make in MODELS.items():
        for attention in ATTENTIONS:
            try:
                moved = _moved(make, attention)
            except (ArithmeticError, ImportError, NotImplementedError, RuntimeError, ValueError) as error:
                if attention not in MAY_LACK:
                    raise
                samples.append({"model": name, "attention": attention, "ran": False, "why": str(error).splitlines()[0]})
                say(f"{name}, {attention}: does not run here: {samples[-1]['why']}")
                continue
            samples.append({"model": name, "attention": attention, "ran": True, "moved": moved})
            say(f"{name}, {attention}: {moved:.2g}")
    ran = [one for one in samples if one["ran"]]
    worst, leaky = max(one["moved"] for one in ran), _with_cache()
    return figure(
        worst, "change of logits", versus=leaky, goal=f"at most {GOAL:g}", holds=worst <= GOAL < leaky, how=__doc__,
        ran=len(ran), samples=samples,
    )  # fmt: skip


def _moved(make: Any, attention: str) -> float:
    from ecellm.train.plain import PlainEngine

    torch.manual_seed(0)
    model = make()
    model.set_attn_implementation(attention)
    engine = PlainEngine(model, toy_run(), torch.device("cpu"))
    few = _samples(0)
    for _ in range(3):  # flex attention on a CPU gives NaN now and then
        if not torch.isfinite(engine.logits(_row(few))).all():
            raise ArithmeticError("logits that are not finite")
    before = _split(engine.logits(_row(few)))
    worst = 0.0
    for changed, other in enumerate(_samples(1)):
        after = _split(engine.logits(_row([other if i == changed else one for i, one in enumerate(few)])))
        worst = max(worst, *(difference(before[i], after[i]) for i in range(3) if i != changed))
        assert difference(before[changed], after[changed]) > 1e-2, "the change itself must be seen"
    for i, one in enumerate(few):
        alone = engine.logits(_row([one]))[0, : LENGTHS[i]]
        worst = max(worst, difference(before[i], alone))
    return worst


def _with_cache() -> float:
    torch.manual_seed(0)
    model = MODELS["llama"]().eval()
    model.set_attn_implementation("sdpa")
    few, others = _samples(0), _samples(1)
    with torch.no_grad():
        rows = [_row(few), _row([others[0], *few[1:]])]
        before, after = (
            _split(model(input_ids=row.input_ids, position_ids=row.position_ids, use_cache=True).logits) for row in rows
        )
    return max(difference(before[i], after[i]) for i in (1, 2))


def _samples(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(seed)
    ids = [draw.integers(3, VOCABULARY, length).astype(np.int32) for length in LENGTHS]
    return [(one[:-3], one[-3:]) for one in ids]


def _row(samples: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    return collate_packed(samples, np.ones((len(samples), 2)), pad_id=0)


def _split(logits: torch.Tensor) -> list[torch.Tensor]:
    return list(logits[0, : sum(LENGTHS)].split(LENGTHS))
