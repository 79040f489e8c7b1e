"""The DeepSpeed ZeRO-3 engine, and the only import of deepspeed.

Every rank owns one slice of each parameter, of its fp32 master and of its moments; layers are gathered when they
are used. The one decision: all micro-steps of an optimizer step add up gradients locally and are reduced once, while
whole gradients fit (`COALESCE_BYTES`) and are fp32; else each micro-step is reduced as it comes, and its share added up
in fp32: a sum of bf16 numbers, with 8 bits each, loses the last of a hundred micro-steps.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import nn

from ecellm.checkpoint.layout import KINDS, Parameter, Reader, Slice
from ecellm.checkpoint.save import Gather
from ecellm.config.schema import Run
from ecellm.data.batch import Batch
from ecellm.errors import ClusterError
from ecellm.records import World
from ecellm.train.engine import catalogue, optimizer
from ecellm.train.loss import AnswerLoss, Want, inputs_of

COALESCE_BYTES = 2 << 30
"""Most bytes of whole gradients that a rank may hold so that a step is reduced once."""


def zero3_config(run: Run, *, gpu: bool, bf16: bool, whole: int | None = None) -> dict[str, Any]:
    """DeepSpeed's configuration. Pure.

    Args:
        whole: parameters of up to so many values stay whole once gathered; None: as the device is best served.

    Accumulation is ours (`forward_backward`), so DeepSpeed's own is 1. On CPUs nothing overlaps and every message
    costs a round trip between processes, so parameters of up to a million values stay whole once gathered.
    """
    return {
        "train_micro_batch_size_per_gpu": run.train.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": run.train.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": gpu,
            "contiguous_gradients": True,
            "reduce_scatter": gpu,
            "reduce_bucket_size": 50_000_000 if gpu else 20_000_000,
            "stage3_prefetch_bucket_size": 50_000_000 if gpu else 0,
            "stage3_param_persistence_threshold": whole if whole is not None else 100_000 if gpu else 1_000_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "memory_efficient_linear": False,
        },
    }


def partition_while_loading(run: Run, *, gpu: bool, bf16: bool) -> object | None:
    """On GPUs, make `from_pretrained` hand each rank its slices at once, so that no rank holds the whole model.

    The object must stay alive while the model is loaded. None on CPUs, where the model fits.
    """
    if not gpu:
        return None
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    deepspeed.init_distributed(dist_backend="nccl")
    return HfDeepSpeedConfig(zero3_config(run, gpu=gpu, bf16=bf16))  # type: ignore[no-untyped-call]


class Zero3Engine:
    """Trains one rank's share of `module`. `torch.distributed` must be up (gloo on CPUs, nccl on GPUs)."""

    def __init__(
        self, module: nn.Module, run: Run, world: World, device: torch.device, *, bf16: bool, whole: int | None = None
    ) -> None:
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self.world, self.device = world, device
        gpu = device.type == "cuda"
        self._loss = AnswerLoss(module)
        self._loss.train()
        # An op for CPU ranks of one machine would be compiled at first use, a minute on a fresh machine. Gloo serves.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it has compiled
            self._engine, *_ = deepspeed.initialize(
                model=self._loss,
                optimizer=optimizer(module, run, device),
                dist_init_required=False if dist.is_initialized() else None,
                config=zero3_config(run, gpu=gpu, bf16=bf16, whole=whole),
            )
        self._zero = self._engine.optimizer
        self._fused = gpu
        self._patience = timedelta(seconds=run.checkpoint.timeout_s)
        parameters, _ = catalogue(module)
        self._coalesce = not bf16 and sum(parameter.numel for parameter in parameters) * 4 <= COALESCE_BYTES

    def forward_backward(self, batches: Iterable[Batch]) -> list[torch.Tensor]:
        losses = []
        with self._engine.coalesce_grad_reduction() if self._coalesce else contextlib.nullcontext():
            for batch in batches:
                loss = self._engine(**inputs_of(batch, self.device))
                if not self._coalesce:
                    self._engine.set_gradient_accumulation_boundary(False)
                # DeepSpeed takes the mean over ranks; ours is a sum.
                self._engine.backward(loss * self.world.size)
                losses.append(loss.detach())
        return losses

    def step(self, learning_rate: float) -> float:
        self._zero.set_lr(learning_rate)
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.step()
        if self._zero.overflow:
            return math.nan
        return float(self._engine.get_global_grad_norm())

    def evaluate(self, batch: Batch) -> torch.Tensor:
        return self._look(batch, "loss")

    def logits(self, batch: Batch, *, own: bool = False) -> torch.Tensor:
        return self._look(batch, "own_logits" if own else "logits")

    def model(self) -> nn.Module:
        return self._loss.model

    def use_own_forward(self) -> None:
        self._loss.alone = False

    def _look(self, batch: Batch, want: Want) -> torch.Tensor:
        self._engine.eval()
        with torch.no_grad():
            found: torch.Tensor = self._engine(**inputs_of(batch, self.device), want=want)
        self._engine.train()
        return found

    def parameters(self) -> tuple[tuple[Parameter, ...], dict[str, str]]:
        return catalogue(self._loss.model)

    def owned(self) -> Iterator[tuple[str, int, int]]:
        return ((name, start, length) for name, _, start, length in self._owned())

    def channel(self) -> Gather:
        group = dist.new_group(backend="gloo", timeout=self._patience)

        def gather(value: Any) -> list[Any]:
            found: list[Any] = [None] * self.world.size
            try:
                dist.all_gather_object(found, value, group=group)
            except RuntimeError as error:  # a rank has gone, or does not answer in time
                raise ClusterError(
                    "the ranks lost each other while a checkpoint was published", found=str(error).splitlines()[0],
                    expected=f"an answer within checkpoint.timeout_s = {self._patience.total_seconds():.0f} s",
                    mend="the run goes on from the checkpoint before when it is started again",
                ) from error  # fmt: skip
            return found

        return gather

    def local_slices(self) -> Iterator[Slice]:
        self._ensure_state()
        for name, parameter, start, length in self._owned():
            for kind in KINDS:
                whole = (
                    safe_get_local_fp32_param(parameter)
                    if kind == KINDS[0]
                    else safe_get_local_optimizer_state(parameter, kind)
                )
                yield Slice(name, kind, start, parameter.ds_numel, whole[:length].detach())

    def load_slices(self, reader: Reader, step: int) -> None:
        self._ensure_state()
        for flat in self._zero.fp32_partitioned_groups_flat:
            self._zero.optimizer.state[flat]["step"].fill_(float(step))
        for name, parameter, start, length in self._owned():
            for kind in KINDS:
                value = torch.zeros(parameter.ds_tensor.ds_numel, dtype=torch.float32)  # slices are padded alike
                if length:
                    value[:length] = reader(name, kind, start, length)
                value = value.to(self.device)
                if kind == KINDS[0]:
                    safe_set_local_fp32_param(parameter, value)
                else:
                    safe_set_local_optimizer_state(parameter, value, kind)
        # The copies that layers compute with are still the old ones, gathered ones included.
        self._zero._partition_all_parameters()
        for group in range(len(self._zero.fp32_partitioned_groups_flat)):
            self._zero._reassign_or_swap_out_partitioned_parameters(group)

    def sums(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.world.size
        dist.all_gather_object(found, value)
        return found

    def _owned(self) -> Iterator[tuple[str, Any, int, int]]:
        """(name, parameter, first value, number of values) of each slice of this rank; the number may be 0."""
        named: Iterator[tuple[str, Any]] = self._loss.model.named_parameters()
        for name, parameter in named:
            if parameter.requires_grad:
                per = parameter.ds_tensor.ds_numel
                start = min(self.world.rank * per, parameter.ds_numel)
                yield name, parameter, start, min(per, parameter.ds_numel - start)

    def _ensure_state(self) -> None:
        """Make AdamW's state before its first step would."""
        state = self._zero.optimizer.state
        for flat in self._zero.fp32_partitioned_groups_flat:
            if not state.get(flat):
                state[flat] = {
                    "step": torch.zeros((), dtype=torch.float32, device=self.device if self._fused else "cpu"),
                    **{kind: torch.zeros_like(flat) for kind in KINDS[1:]},
                }
