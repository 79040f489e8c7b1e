"""The seam between the training loop and whatever does the arithmetic: DeepSpeed ZeRO-3, or plain PyTorch.

The loop knows only this protocol. The one decision: gradients are sums. A batch comes with weights that sum to 1 over
the global batch, and an engine adds up gradients over micro-steps and ranks without dividing by anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from ecellm.checkpoint.layout import Parameter, Reader, Slice
from ecellm.checkpoint.save import Gather
from ecellm.config.schema import Run
from ecellm.data.batch import Batch
from ecellm.records import World


class Engine(Protocol):
    """One rank's part of the training of one model."""

    world: World
    device: torch.device

    def forward_backward(self, batches: Iterable[Batch]) -> list[torch.Tensor]:
        """All micro-steps of one optimizer step; every rank gives equally many.

        Returns the loss sum of each micro-step on this rank (scalars, detached, on the device).
        """

    def step(self, learning_rate: float) -> float:
        """Clip and update. Returns the gradient's norm before clipping, over the whole model and all ranks.

        Where the norm is not finite nothing is updated.
        """

    def evaluate(self, batch: Batch) -> torch.Tensor:
        """Loss sum of a batch on this rank, without gradients, dropout off."""

    def logits(self, batch: Batch, *, own: bool = False) -> torch.Tensor:
        """Logits of every position, [batch, seq, vocabulary], without gradients, dropout off: for checks of small rows.

        Args:
            own: as the model's own forward gives them, rather than by the output head alone (`train.loss`).
        """

    def model(self) -> nn.Module:
        """The model that is trained, with its adapters."""

    def use_own_forward(self) -> None:
        """Work out losses through the model's own forward from now on."""

    def parameters(self) -> tuple[tuple[Parameter, ...], dict[str, str]]:
        """The trained parameters, and the other names of those that are tied."""

    def owned(self) -> Iterator[tuple[str, int, int]]:
        """(parameter, first value, number of values, perhaps 0) of each slice of this rank."""

    def channel(self) -> Gather:
        """`gather` for a thread of its own, over a process group that nothing else uses. Every rank asks at once."""

    def local_slices(self) -> Iterator[Slice]:
        """What this rank owns of the fp32 weights and the moments, on the CPU or the device."""

    def load_slices(self, reader: Reader, step: int) -> None:
        """Take weights, moments and the step count from a checkpoint, whatever number of ranks wrote it."""

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks (float64)."""

    def gather(self, value: Any) -> list[Any]:
        """One object of each rank, in rank order, on every rank."""


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: decay for matrices, none for biases and norms. Frozen parameters are in neither."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            small = name.endswith("bias") or "norm" in name.lower()
            (plain if small else decayed).append(parameter)
    groups = [(decayed, weight_decay), (plain, 0.0)] if weight_decay else [(decayed + plain, 0.0)]
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


def optimizer(module: nn.Module, run: Run, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the trained parameters, fused on a GPU."""
    train = run.train
    return torch.optim.AdamW(
        parameter_groups(module, train.weight_decay),
        lr=train.learning_rate,
        betas=train.betas,
        fused=device.type == "cuda",
    )


def catalogue(module: nn.Module) -> tuple[tuple[Parameter, ...], dict[str, str]]:
    """Names and whole shapes of the trained parameters, and the other names of tied ones.

    Under ZeRO-3 a parameter's own shape is that of nothing; `ds_shape` is the whole one.
    """
    first: dict[int, str] = {}
    found, tied = [], {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            tied[name] = first[id(parameter)]
            continue
        first[id(parameter)] = name
        if parameter.requires_grad:
            found.append(Parameter(name=name, shape=tuple(getattr(parameter, "ds_shape", parameter.shape))))
    names = {parameter.name for parameter in found}
    return tuple(found), {alias: name for alias, name in tied.items() if name in names}
