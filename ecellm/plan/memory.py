"""Memory of one rank of a ZeRO-3 training, term by term, from shapes alone.

The one decision: the terms are what the code of `train` really holds, not a rule of thumb, so that the same formulas
give CPU ranks in fp32 (measured by a benchmark) and GPUs in bf16 (compared with published runs). Sources:
  state: 16 bytes a parameter over all ranks in mixed precision, weights and gradients in 2 bytes, fp32 master and two
    moments in 12 (Rajbhandari et al. 2020, ZeRO, section 3.1); here 18, since gradients are added up in fp32;
  activations: what autograd keeps of a block, tensor by tensor (the method of Korthikanti et al. 2022, Reducing
    Activation Recomputation, section 4, for gated MLPs, RMS norms in fp32 and attention that keeps no scores);
  logits: 32-bit copies of the rows that go through the output head at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecellm.architectures import Architecture

LIVE = 1_000_000_000
"""Parameters that DeepSpeed keeps gathered at most (`stage3_max_live_parameters` of `train.zero3`)."""
WHOLE_GRADIENTS = 2 << 30
"""Whole fp32 gradients are held between micro-steps up to this many bytes (`COALESCE_BYTES` of `train.zero3`)."""
BUCKET = 50_000_000
"""Parameters of a reduce bucket on a GPU; two are in flight."""
SUB_GROUP = 1_000_000_000
"""Parameters that DeepSpeed updates at once."""
PIECE_BYTES = 256 << 20
"""fp32 logits that the output head gives at once (`train.loss`)."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a model is trained.

    Args:
        ranks: processes that share the state.
        tokens: of one micro-step of one rank, padding included.
        length: of the longest sample, in tokens.
        predicted: tokens that go through the output head; at most `tokens`.
        width: bytes of a weight in the forward pass: 2 for bf16, 4 for fp32.
        gradient: bytes of a gradient that is added up over micro-steps: 4 here, 2 in many published runs.
        lora: adapter parameters, 0 for full fine-tuning.
        adapted: names of the matrices with adapters.
        checkpointing: activations of a block are computed again in the backward pass.
        gpu: fused kernels and flash attention; else PyTorch on a CPU.
        pieces: logits are computed in pieces of PIECE_BYTES, as here; published runs hold them whole.
    """

    ranks: int
    tokens: int
    length: int
    predicted: int
    width: int = 2
    gradient: int = 4
    lora: int = 0
    adapted: tuple[str, ...] = ()
    checkpointing: bool = False
    gpu: bool = True
    pieces: bool = True


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank. `whole` are gradients before they are shared out; `peak` is the most at one time."""

    weights: float
    gradients: float
    optimizer: float
    whole: float
    gathered: float
    activations: float
    logits: float
    step: float
    peak: float

    @property
    def state(self) -> float:
        """What stays between steps."""
        return self.weights + self.gradients + self.optimizer


def memory(shape: Architecture, setup: Setup) -> Memory:
    """Every term of one rank's memory, in bytes."""
    total = shape.parameters + setup.lora
    trained = setup.lora or shape.parameters
    ranks, width = setup.ranks, setup.width
    weights, gradients, optimizer = width * total / ranks, setup.gradient * trained / ranks, 12 * trained / ranks
    gathered = width * min(total, LIVE) if ranks > 1 else 0.0
    whole = 4 * trained
    if width < 4 or whole > WHOLE_GRADIENTS:
        whole = 2 * width * min(trained, BUCKET)
    block = block_bytes(shape, setup)
    kept = shape.layers * (width * shape.hidden if setup.checkpointing else block) * setup.tokens
    kept += shape.layers * score_bytes(shape, setup) if not setup.checkpointing else score_bytes(shape, setup)
    logits = logit_bytes(shape, setup)
    # The loss at the end of the forward pass, or the first block's backward pass: not both at once.
    activations = kept + max(block * setup.tokens - logits, 0.0)
    largest = width * shape.vocab * shape.hidden if not setup.lora else 0.0
    backward = gathered + whole + activations + logits + largest
    # The update makes fp32 gradients of a sub-group; on a CPU also the root of the second moment, and its quotient.
    step = 4 * min(trained / ranks, SUB_GROUP) + (0 if setup.gpu else 8 * trained / ranks)
    state = weights + gradients + optimizer
    return Memory(
        weights=weights, gradients=gradients, optimizer=optimizer, whole=whole + largest, gathered=gathered,
        activations=activations, logits=logits, step=step, peak=state + max(backward, step),
    )  # fmt: skip


def block_bytes(shape: Architecture, setup: Setup) -> float:
    """Bytes that autograd keeps of one block for each token."""
    width, hidden, frozen = setup.width, shape.hidden, bool(setup.lora)
    # RMS norms work in fp32 and keep their input so; a trained weight keeps the normed input, a linear layer its own.
    norm_in = 4 if shape.rms_norm else width
    norms = shape.norms * hidden * (norm_in + (0 if frozen else (width if shape.rms_norm else 0) + width))
    keys = 2 * (shape.kv if setup.gpu else hidden)
    # Queries, keys, values, and the output, which a CPU copies into another order.
    attention = shape.attentions * width * (hidden + keys + hidden + (0 if setup.gpu else hidden))
    # Gate, its activation and up are multiplied: all three stay; the down projection keeps the product.
    kept = (3 if shape.gated else 1) + (0 if frozen else 1)
    mlp = kept * width * shape.inner
    adapters = sum(
        (width + 1) * matrix.rows * matrix.copies / shape.layers  # the input after dropout, and the mask
        for matrix in shape.matrices
        if frozen and matrix.name in setup.adapted and matrix.name != "lm_head"
    )
    return norms + attention + mlp + adapters


def score_bytes(shape: Architecture, setup: Setup) -> float:
    """Bytes of attention scores of one block, where the model's position bias rules out fused attention."""
    if not shape.scores:
        return 0.0
    rows = max(1, setup.tokens // setup.length)
    return (4 + 2 * setup.width) * shape.heads * shape.attentions * rows * float(setup.length) ** 2


def logit_bytes(shape: Architecture, setup: Setup) -> float:
    """Bytes of logits: as the model gives them, in fp32, and their gradient."""
    rows = setup.predicted
    if setup.pieces:
        rows = min(rows, max(1, PIECE_BYTES // (4 * shape.vocab)))
    return rows * shape.vocab * (2.0 * 4 + (setup.width if setup.width < 4 else 4))
