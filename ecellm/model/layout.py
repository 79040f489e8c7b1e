"""How a model's weights lie in memory while it answers on a CPU. Numbers are the same but for rounding."""

from __future__ import annotations

from typing import Any

import torch

from ecellm.model.budget import free_ram

SHARE = 0.5
"""Part of the free memory that the copies of all workers may take: weights that were mapped from a file are shared."""


@torch.inference_mode()
def lay_out(model: Any, workers: int = 1) -> bool:
    """Linear layers' weights [out, in] in memory as [in, out], in float32 on a CPU; returns whether it was done.

    The product with few rows, which a decode step is, then runs in MKL's usual kernels, and not in the one for up to 23
    rows that is half as fast. What is embedded with stays as it is, since an embedding's row must lie together.

    Args:
        model: on its device.
        workers: processes like this one that share the machine's memory.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    layers = [module for module in model.modules()
              if isinstance(module, torch.nn.Linear) and id(module.weight) not in embedded]  # fmt: skip
    suits = all(layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 for layer in layers)
    if not suits or sum(layer.weight.nbytes for layer in layers) * workers > free_ram() * SHARE:
        return False
    for layer in layers:
        layer.weight.data = layer.weight.data.t().contiguous().t()
    return True
