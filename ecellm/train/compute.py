"""How much arithmetic a step is and how much the hardware could do: the two sides of MFU. No training here.

Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B) = FLOPs that the model needs for its tokens, over what
the workers could do at best in the same time. What is done twice (recomputed activations) does not count.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any

import torch

PEAKS = {
    "A10G": 70e12, "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "V100": 125e12, "A100": 312e12,
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12,
}  # fmt: skip
"""Dense bf16 (V100: fp16) tensor FLOP/s by a part of the device's name, as the makers' data sheets give them."""


@dataclass(frozen=True)
class Arithmetic:
    """FLOPs of one token, forward and backward, and FLOP/s of one worker at best.

    flops = 6 * (parameters that multiply) + 12 * layers * width * reach

    6 for each weight and token: 2 forward, 4 backward (Kaplan et al. 2020). Embeddings are looked up, not multiplied;
    the output head counts for the share of positions that go through it. Attention: `reach` is the mean number of
    tokens that a token of a packed row attends to (half its sample's length), 4 * width FLOPs a layer forward and
    twice that backward. With frozen weights (adapters) the backward pass is 2 instead of 4 for each of them. The two
    halves of an encoder-decoder count for the tokens that go through them.
    """

    flops_per_token: float
    peak: float | None
    """None for a GPU we have no figure of."""

    def utilisation(self, tokens_per_second: float, workers: int) -> float | None:
        """A share of the workers' peak; tokens over all workers."""
        return None if not self.peak else self.flops_per_token * tokens_per_second / (self.peak * workers)


def arithmetic(model: Any, device: torch.device, *, mean_length: float, head_share: float) -> Arithmetic:
    """The arithmetic of a model of transformers, parted over ranks or not.

    Args:
        mean_length: tokens of a sample, weighted by tokens.
        head_share: share of a sample's tokens that go through the output head.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # its names have no prefix of peft's
    config = base.config.get_text_config()
    embeddings = {id(base.get_input_embeddings().weight)}
    head = base.get_output_embeddings()
    of_head = {id(parameter) for parameter in head.parameters()} if head is not None else set()  # with its adapters
    flops = 0.0
    shares = {"encoder": 1 - head_share, "decoder": head_share} if config.is_encoder_decoder else {}
    for name, parameter in base.named_parameters():
        numel = float(getattr(parameter, "ds_numel", parameter.numel()))
        per = (6.0 if parameter.requires_grad else 4.0) * shares.get(name.partition(".")[0], 1.0)
        if id(parameter) in of_head:
            flops += per * numel * head_share
        elif id(parameter) not in embeddings:
            flops += per * numel
    layers = int(getattr(config, "num_hidden_layers", 0))
    width = int(getattr(config, "hidden_size", 0))
    flops += 12.0 * layers * width * mean_length / 2
    return Arithmetic(flops, peak_flops(device))


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s that one worker could do at best; None for a GPU we have no figure of.

    A CPU is measured: the best of a few fp32 matrix products with the threads of this process.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        fits = [part for part in PEAKS if part in name]
        return PEAKS[max(fits, key=len)] if fits else None
    size = 768
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def memory_bytes(device: torch.device) -> int:
    """Most memory that this process had: on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux; there the figure may be that of whoever started this process
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
