"""What a training run will need, before anything is spent: memory per GPU, steps, time, checkpoint bytes.

Not a promise: every figure is an estimate from shapes, and the output says what was assumed. Formulas:
  model state of ZeRO-3 with mixed-precision AdamW, 16 bytes a parameter over all GPUs: 2 weights, 2 gradients, 12 fp32
    master and moments (Rajbhandari et al. 2020, ZeRO, section 3.1);
  activations of a block with flash attention, 34 x tokens x hidden bytes, or 2 with gradient checkpointing plus one
    block (Korthikanti et al. 2022, Reducing Activation Recomputation, section 4);
  6 x parameters x tokens operations a step, 8 with gradient checkpointing (Kaplan et al. 2020; one more forward pass).
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import typer
from rich.table import Table

from ecellm.architectures import KNOWN, Architecture, architecture
from ecellm.config.schema import Run
from ecellm.console import console
from ecellm.errors import ConfigError

GIB = 1 << 30
PUBLISHED_ROWS = 92_022
"""Training rows of the published data set (spec A.4)."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory in GiB and dense bf16 peak in operations a second (vendors' data sheets)."""

    memory: float
    peak: float


GPUS = {
    "A10G": Gpu(22.5, 70e12), "L4": Gpu(22.5, 121e12), "L40S": Gpu(44.5, 362e12), "A100-40GB": Gpu(39.5, 312e12),
    "A100-80GB": Gpu(79.3, 312e12), "H100": Gpu(79.6, 989e12), "H200": Gpu(139.8, 989e12), "B200": Gpu(178.0, 2250e12),
}  # fmt: skip
UTILISATION = 0.35
"""Share of the peak that fine-tuning reaches; metrics.jsonl has the true one (`mfu`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The estimate. Memory is of one GPU, in bytes."""

    base: str
    parameters: int
    trained: int
    gpus: int
    gpu: str
    gpu_memory: float
    state: float
    activations: float
    gathered: float
    memory: float
    fits: bool
    fewest_gpus: int
    """Fewest GPUs of this kind that hold the run; 0: no number does."""
    rows: int
    steps: int
    tokens: int
    hours: float
    checkpoint: int
    kept: int
    assumed: tuple[str, ...]


def plan(run: Run, *, gpus: int, gpu: str = "A100-80GB", tokens_per_sample: int = 400) -> Plan:
    """Estimate a training run.

    Raises:
        ConfigError: an unknown kind of GPU, or a base model whose shape is not known here.
    """
    if gpu not in GPUS:
        raise ConfigError(f"--gpu: unknown kind {gpu!r}", expected="one of " + ", ".join(GPUS))
    shape = architecture(run.model.base, run.model.tiny)
    if shape is None:
        raise ConfigError(
            f"model.base: no shape known for {run.model.base!r}",
            expected="one of tiny, " + ", ".join(sorted(KNOWN)),
            mend="plan with the known model nearest in size, for instance with --model.base",
        )
    lora = run.model.lora
    trained = shape.lora_parameters(lora.rank, lora.targets) if lora else shape.parameters
    total = shape.parameters + (trained if lora else 0)
    parts = _memory(run, shape, total, trained, gpus)
    rows = _rows(run)
    steps = run.train.max_steps or run.train.epochs * math.ceil(rows / run.train.batch_size)
    samples = min(steps * run.train.batch_size, rows * run.train.epochs)
    tokens = samples * min(tokens_per_sample, run.prepare.max_length)
    passes = 8 if run.model.gradient_checkpointing else 6
    seconds = passes * total * tokens / (gpus * GPUS[gpu].peak * UTILISATION)
    room = GPUS[gpu].memory * GIB
    stored = 12 * trained
    return Plan(
        base=run.model.base, parameters=total, trained=trained, gpus=gpus, gpu=gpu, gpu_memory=room,
        state=parts[0], activations=parts[1], gathered=parts[2], memory=sum(parts), fits=sum(parts) <= room,
        fewest_gpus=_fewest(run, shape, total, trained, room), rows=rows, steps=steps, tokens=tokens,
        hours=seconds / 3600, checkpoint=stored, kept=stored * (run.checkpoint.keep + 1) + 2 * total,
        assumed=_assumed(run, gpu, tokens_per_sample),
    )  # fmt: skip


def _memory(run: Run, shape: Architecture, total: int, trained: int, gpus: int) -> tuple[float, float, float]:
    """(state, activations, gathered weights) of one GPU, in bytes."""
    state = (2 * total + 14 * trained) / gpus
    tokens = run.train.micro_batch_size * run.prepare.max_length
    block = 34 * tokens * shape.hidden
    blocks = (
        2 * tokens * shape.hidden * shape.layers + block if run.model.gradient_checkpointing else block * shape.layers
    )
    logits = tokens * shape.vocab * (2 + 4 + 4)
    # One block and its prefetched neighbour, and the largest single matrix (embedding or head), stand whole in 16 bit.
    gathered = 2 * 2 * total / shape.layers + 2 * shape.vocab * shape.hidden if gpus > 1 else 0.0
    return state, float(blocks + logits), gathered


def _fewest(run: Run, shape: Architecture, total: int, trained: int, room: float) -> int:
    for gpus in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        if sum(_memory(run, shape, total, trained, gpus)) <= room:
            return gpus
    return 0


def _rows(run: Run) -> int:
    if run.sources.published:
        return PUBLISHED_ROWS
    return sum(run.build.task_sizes.get(task, run.build.sizes).train for task in run.build.tasks)


def _assumed(run: Run, gpu: str, tokens_per_sample: int) -> tuple[str, ...]:
    rows = "rows of the published data set" if run.sources.published else "rows: the most that build.sizes allows"
    return (
        f"{gpu} with {GPUS[gpu].memory:g} GiB and {GPUS[gpu].peak / 1e12:g} TFLOP/s, used to {UTILISATION:.0%}",
        f"samples of {min(tokens_per_sample, run.prepare.max_length)} tokens on average, memory for the longest "
        f"({run.prepare.max_length})",
        rows,
        "bfloat16 weights, AdamW in fp32, flash attention; allocator and NCCL take some GiB more",
    )


def show(estimate: Plan, *, as_json: bool = False) -> None:
    """Print a plan: JSON on stdout, or a table on stderr."""
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(estimate), indent=1))
        return
    table = Table(title=f"{estimate.base} on {estimate.gpus} x {estimate.gpu}", box=None, title_justify="left")
    table.add_column("", justify="left")
    table.add_column("", justify="right")
    fits = "[green]fits[/green]" if estimate.fits else "[red]does not fit[/red]"
    fewest = f"{estimate.fewest_gpus}" if estimate.fewest_gpus else "none: use a smaller micro-batch or a larger GPU"
    for name, value in (
        ("parameters, trained", f"{estimate.parameters / 1e9:.3f} B, {estimate.trained / 1e9:.3f} B"),
        ("model state per GPU", _gib(estimate.state)),
        ("activations per GPU", _gib(estimate.activations)),
        ("gathered weights per GPU", _gib(estimate.gathered)),
        ("memory per GPU", f"{_gib(estimate.memory)} of {_gib(estimate.gpu_memory)}: {fits}"),
        ("fewest GPUs of this kind", fewest),
        ("training rows, steps", f"{estimate.rows:,}, {estimate.steps:,}"),
        ("tokens", f"{estimate.tokens / 1e6:,.1f} M"),
        ("time", f"{estimate.hours:.2f} h, {estimate.hours * estimate.gpus:.1f} GPU-hours"),
        ("one checkpoint", _gib(estimate.checkpoint)),
        ("storage for the run", _gib(estimate.kept)),
    ):
        table.add_row(name, value)
    console.print(table)
    for line in estimate.assumed:
        console.print(f"[dim]assumed: {line}[/dim]")


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def stop_seconds(run: Run) -> int:
    """stub"""
    return 120
