"""A run and a number of GPUs to a Plan. Pure arithmetic.

Operations of a step: 6 x parameters x tokens (Kaplan et al. 2020), 8 with gradient checkpointing (one more forward
pass); adapters alone save the gradient of the frozen weights, a third of the backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ecellm.architectures import KNOWN, Architecture, architecture
from ecellm.config.schema import Run
from ecellm.errors import ConfigError
from ecellm.plan.gpus import Gpu, gpu_named
from ecellm.plan.memory import Memory, Setup, memory

GIB = 1 << 30
PUBLISHED_ROWS = 92_022
"""Training rows of the published data set (spec A.4)."""
UTILISATION = (0.25, 0.50)
"""Share of the peak that fine-tuning reaches, slow and fast; metrics.jsonl has the true one (`mfu`)."""
UPLOAD = (0.2e9, 1.5e9)
"""Bytes a second that one node puts into S3 or a parallel file system, slow and fast."""
HEADROOM = 0.06
"""Share of a GPU that the allocator loses to fragments and NCCL to its buffers."""
GPUS_TRIED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The estimate. Memory is of one GPU, in bytes; pairs are ranges from low to high; costs are in USD."""

    base: str
    parameters: int
    trained: int
    gpus: int
    nodes: int
    gpu: str
    gpu_memory: float
    state: float
    gradients: float
    activations: float
    logits: float
    gathered: float
    memory: float
    fits: bool
    fewest_gpus: int
    """Fewest GPUs of this kind that hold the run; 0: no number does."""
    rows: int
    steps: int
    tokens: int
    hours: tuple[float, float]
    gpu_hours: tuple[float, float]
    cost: tuple[float, float]
    checkpoint: int
    kept: int
    upload_seconds: tuple[float, float]
    """Of one checkpoint, all nodes at once; training goes on meanwhile."""
    stop_seconds: int
    """What to give a stop, as --signal=B:USR1@N and --stop-wait."""
    assumed: tuple[str, ...]


def plan(
    run: Run, *, gpus: int, gpu: str = "A100-80GB", tokens_per_sample: int = 400, nodes: int = 0, price: float = 0.0
) -> Plan:
    """Estimate a training run.

    Args:
        nodes: machines that the GPUs are in; 0: eight in each.
        price: USD of a GPU and hour, instead of the table's range.

    Raises:
        ConfigError: an unknown kind of GPU, or a base model whose shape is not known here.
    """
    kind, shape = gpu_named(gpu), shape_of(run)
    nodes = nodes or -(-gpus // 8)
    trained = _trained(run, shape)
    found, room = memory(shape, setup_of(run, shape, gpus)), kind.memory * GIB * (1 - HEADROOM)
    rows = _rows(run)
    steps = run.train.max_steps or run.train.epochs * math.ceil(rows / run.train.batch_size)
    samples = min(steps * run.train.batch_size, rows * run.train.epochs)
    tokens = samples * min(tokens_per_sample, run.prepare.max_length)
    hours = _hours(run, shape, tokens, gpus, kind)
    each = (price, price) if price else (kind.cheap, kind.dear)
    stored = checkpoint_bytes(shape, trained, gpus)
    return Plan(
        base=run.model.base, parameters=_total(run, shape), trained=trained, gpus=gpus, nodes=nodes, gpu=gpu,
        gpu_memory=kind.memory * GIB, state=found.state, gradients=found.whole, activations=found.activations,
        logits=found.logits, gathered=found.gathered, memory=found.peak, fits=found.peak <= room,
        fewest_gpus=next((n for n in GPUS_TRIED if _peak(run, shape, n).peak <= room), 0), rows=rows, steps=steps,
        tokens=tokens, hours=hours, gpu_hours=(hours[0] * gpus, hours[1] * gpus),
        cost=(hours[0] * gpus * each[0], hours[1] * gpus * each[1]), checkpoint=stored,
        kept=stored * (run.checkpoint.keep + 1) + 2 * _total(run, shape),
        upload_seconds=(stored / nodes / UPLOAD[1], stored / nodes / UPLOAD[0]),
        stop_seconds=_stop(stored, nodes, hours, steps), assumed=_assumed(run, gpu, kind, tokens_per_sample, each),
    )  # fmt: skip


def shape_of(run: Run) -> Architecture:
    """Raises ConfigError for a base whose shape is not known."""
    shape = architecture(run.model.base, run.model.tiny)
    if shape is None:
        raise ConfigError(
            f"model.base: no shape known for {run.model.base!r}",
            expected="one of tiny, " + ", ".join(sorted(KNOWN)),
            mend="plan with the known model nearest in size, for instance with --model.base",
        )
    return shape


def setup_of(run: Run, shape: Architecture, gpus: int, *, gpu: bool = True) -> Setup:
    """How a run trains, for the memory of its worst micro-step."""
    lora = run.model.lora
    tokens = max(run.train.micro_batch_size * run.prepare.max_length, getattr(run.train, "pack_tokens", 0))
    return Setup(
        ranks=gpus, tokens=tokens, length=run.prepare.max_length, predicted=tokens,
        width=4 if run.model.dtype == "float32" or not gpu else 2,
        lora=shape.lora_parameters(lora.rank, lora.targets) if lora else 0,
        adapted=(lora.targets or shape.lora_targets) if lora else (), checkpointing=run.model.gradient_checkpointing,
        gpu=gpu,
    )  # fmt: skip


def checkpoint_bytes(shape: Architecture, trained: int, ranks: int) -> int:
    """fp32 weights and two moments, and the headers of the files: a line for each slice of each tensor."""
    tensors = sum(matrix.copies for matrix in shape.matrices) + shape.norms * shape.layers + 2
    return 12 * trained + 3 * ranks * tensors * 150


def stop_seconds(run: Run) -> int:
    """Seconds that a stop needs to save: twice the checkpoint at a slow upload, and half a minute.

    The step that is under way is not in it: how long it takes depends on the GPU, which `plan` is told.
    """
    try:
        shape = shape_of(run)
    except ConfigError:
        return 600
    nodes = -(-run.cluster.workers // 8)
    return _stop(checkpoint_bytes(shape, _trained(run, shape), run.cluster.workers), nodes, (0.0, 0.0), 1)


def _stop(stored: int, nodes: int, hours: tuple[float, float], steps: int) -> int:
    step = hours[1] * 3600 / max(1, steps)
    return max(60, 30 * math.ceil((30 + 2 * (step + stored / nodes / UPLOAD[0])) / 30))


def _peak(run: Run, shape: Architecture, gpus: int) -> Memory:
    return memory(shape, setup_of(run, shape, gpus))


def _trained(run: Run, shape: Architecture) -> int:
    lora = run.model.lora
    return shape.lora_parameters(lora.rank, lora.targets) if lora else shape.parameters


def _total(run: Run, shape: Architecture) -> int:
    return shape.parameters + (_trained(run, shape) if run.model.lora else 0)


def _hours(run: Run, shape: Architecture, tokens: int, gpus: int, kind: Gpu) -> tuple[float, float]:
    passes = (8 if run.model.gradient_checkpointing else 6) - (2 if run.model.lora else 0)
    work = passes * _total(run, shape) * tokens / (gpus * kind.peak * 3600)
    return work / UTILISATION[1], work / UTILISATION[0]


def _rows(run: Run) -> int:
    if run.sources.published:
        return PUBLISHED_ROWS
    return sum(run.build.task_sizes.get(task, run.build.sizes).train for task in run.build.tasks)


def _assumed(run: Run, name: str, kind: Gpu, tokens: int, each: tuple[float, float]) -> tuple[str, ...]:
    rows = "rows of the published data set" if run.sources.published else "rows: the most that build.sizes allows"
    width = "float32" if run.model.dtype == "float32" else "bfloat16"
    return (
        f"{name} with {kind.memory:g} GiB and {kind.peak / 1e12:g} TFLOP/s, of which training reaches "
        f"{UTILISATION[0]:.0%} to {UTILISATION[1]:.0%}",
        f"{each[0]:.2f} to {each[1]:.2f} USD for a GPU and hour" + (", late 2025" if each[0] != each[1] else ""),
        f"samples of {min(tokens, run.prepare.max_length)} tokens on average, memory for the longest "
        f"({run.prepare.max_length})",
        rows,
        f"{width} weights, AdamW in fp32, flash attention; {HEADROOM:.0%} of a GPU lost to fragments and NCCL",
    )
