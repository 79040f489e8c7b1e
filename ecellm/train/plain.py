"""The plain engine: one process, PyTorch alone. For tests, and as the yardstick of what ZeRO-3 costs.

fp32 weights throughout; with bfloat16 asked for, the forward pass runs under autocast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ecellm.checkpoint.layout import KINDS, Parameter, Reader, Slice
from ecellm.checkpoint.save import Gather
from ecellm.config.schema import Run
from ecellm.data.batch import Batch
from ecellm.records import World
from ecellm.train.engine import catalogue, optimizer
from ecellm.train.loss import AnswerLoss, Want, inputs_of


class PlainEngine:
    """Trains `module` in this process."""

    def __init__(self, module: nn.Module, run: Run, device: torch.device, *, autocast: bool = False) -> None:
        self.world = World(rank=0, size=1)
        self.device = device
        self._module = module.float().to(device)
        self._loss = AnswerLoss(self._module)
        self._loss.train()
        self._optimizer = optimizer(module, run, device)
        self._max_norm = run.train.max_grad_norm
        self._autocast = autocast

    def forward_backward(self, batches: Iterable[Batch]) -> list[torch.Tensor]:
        losses = []
        for batch in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                loss = self._loss(**inputs_of(batch, self.device))
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return losses

    def step(self, learning_rate: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        trained = [parameter for _, parameter in self._trained()]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if torch.isfinite(norm):
            nn.utils.clip_grads_with_norm_(trained, self._max_norm, norm)
            self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm)

    def evaluate(self, batch: Batch) -> torch.Tensor:
        return self._look(batch, "loss")

    def logits(self, batch: Batch, *, own: bool = False) -> torch.Tensor:
        return self._look(batch, "own_logits" if own else "logits")

    def model(self) -> nn.Module:
        return self._loss.model

    def use_own_forward(self) -> None:
        self._loss.alone = False

    def _look(self, batch: Batch, want: Want) -> torch.Tensor:
        self._loss.eval()
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            found: torch.Tensor = self._loss(**inputs_of(batch, self.device), want=want)
        self._loss.train()
        return found

    def parameters(self) -> tuple[tuple[Parameter, ...], dict[str, str]]:
        return catalogue(self._module)

    def owned(self) -> Iterator[tuple[str, int, int]]:
        return ((name, 0, parameter.numel()) for name, parameter in self._trained())

    def channel(self) -> Gather:
        return self.gather

    def local_slices(self) -> Iterator[Slice]:
        self._ensure_state()
        for name, parameter in self._trained():
            state = self._optimizer.state[parameter]
            for kind in KINDS:
                tensor = parameter if kind == KINDS[0] else state[kind]
                yield Slice(name, kind, 0, parameter.numel(), tensor.detach().flatten())

    def load_slices(self, reader: Reader, step: int) -> None:
        self._ensure_state()
        for name, parameter in self._trained():
            state = self._optimizer.state[parameter]
            state["step"].fill_(float(step))
            for kind in KINDS:
                tensor = parameter.data if kind == KINDS[0] else state[kind]
                tensor.copy_(reader(name, kind, 0, parameter.numel()).view(parameter.shape))

    def sums(self, values: Sequence[float]) -> list[float]:
        return [float(value) for value in values]

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self._module.named_parameters() if p.requires_grad)

    def _ensure_state(self) -> None:
        """Make AdamW's state before its first step would."""
        fused = self.device.type == "cuda"
        for _, parameter in self._trained():
            if not self._optimizer.state[parameter]:
                self._optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=self.device if fused else "cpu"),
                    **{kind: torch.zeros_like(parameter) for kind in KINDS[1:]},
                }
