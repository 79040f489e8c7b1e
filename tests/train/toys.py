"""Toy models, data and runs for the tests of training and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from ecellm.config.schema import Checkpoint, Model, Run, Train
from ecellm.data.batch import Batch
from ecellm.data.microsteps import Layout
from ecellm.model.attention import register
from ecellm.records import World
from ecellm.train.engine import Engine
from ecellm.train.lora import add_adapters
from ecellm.train.plain import PlainEngine

VOCABULARY = 97


def toy_run(out: str = "unused", *, train: dict[str, Any] | None = None, **sections: Any) -> Run:
    """A run file of a toy."""
    settings: dict[str, Any] = {"batch_size": 8, "micro_batch_size": 2, "epochs": 2, "learning_rate": 1e-3}
    return Run(
        name="toy", out=out, seed=7, model=sections.pop("model", Model(base="tiny")),
        train=Train(**(settings | (train or {}))), checkpoint=sections.pop("checkpoint", Checkpoint(every=4)),
        **sections,
    )  # fmt: skip


def toy_llama(*, tied: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=tied, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def toy_t5(*, tied: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, tie_word_embeddings=tied,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class ToyTokens:
    """Stands for `data.shards.TokenSet`: same fields, invented tokens."""

    n: int
    fingerprint: str = "toy"

    @property
    def prompt_lengths(self) -> np.ndarray:
        return np.array([3 + i % 7 for i in range(self.n)], dtype=np.int32)

    @property
    def answer_lengths(self) -> np.ndarray:
        return np.array([1 + i % 4 for i in range(self.n)], dtype=np.int32)

    @property
    def tasks(self) -> np.ndarray:
        return np.array([i % 3 for i in range(self.n)], dtype=np.int32)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"sample-{i}" for i in range(self.n))

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(i)
        prompt = rng.integers(3, VOCABULARY, self.prompt_lengths[i]).astype(np.int32)
        return prompt, np.concatenate([prompt[: self.answer_lengths[i] - 1], [2]]).astype(np.int32)


def toy_layout(*, t5: bool = False, micro: int = 2, pack_tokens: int = 40, **changes: Any) -> Layout:
    """Packed rows, or padded ones for T5 or without `pack_tokens`."""
    return Layout(encoder_decoder=t5, pad_id=0, micro_batch_size=micro, pack_tokens=0 if t5 else pack_tokens, **changes)


def toy_batches(tokens: ToyTokens, numbers: np.ndarray, world: World, layout: Layout) -> list[Batch]:
    """One rank's micro-steps of a global batch."""
    dealt = layout.deal(tokens, numbers, world.size)
    return layout.micro_steps(tokens, numbers, world, dealt, layout.weights(tokens, numbers))


def toy_engine(
    kind: str, run: Run, world: World, *, t5: bool = False, attention: str = "sdpa_varlen", tied: bool = True,
    bf16: bool = False,
) -> Engine:  # fmt: skip
    """A fresh engine around a toy model with fixed weights; adapters and recomputation as `run.model` says.

    Under ZeRO-3 no parameter is small enough to stay whole, so that each is gathered and let go of as on a GPU.
    """
    register()
    module: Any = toy_t5(tied=tied) if t5 else toy_llama(tied=tied)
    if not t5:
        module.set_attn_implementation(attention)
    if run.model.gradient_checkpointing:
        module.gradient_checkpointing_enable()
    if run.model.lora:
        module = add_adapters(module, run.model.lora)
    if kind == "plain":
        return PlainEngine(module, run, torch.device("cpu"))
    from ecellm.train.zero3 import Zero3Engine

    if bf16:
        module = module.to(torch.bfloat16)
    return Zero3Engine(module, run, world, torch.device("cpu"), bf16=bf16, whole=0)
