"""How much arithmetic a step is and how much the hardware could do: the two sides of MFU. No training here.

Model FLOPs: 6 for each parameter and token, forward and backward (Kaplan et al. 2020), attention's share left out.
"""

from __future__ import annotations

import resource
import time

import torch

PEAKS = {
    "A10G": 70e12, "A10": 125e12, "L4": 121e12, "L40S": 362e12, "V100": 125e12, "A100": 312e12, "H100 PCIe": 756e12,
    "H100": 989e12, "H200": 989e12, "B200": 2250e12,
}  # fmt: skip
"""Dense bf16 (V100: fp16) tensor FLOP/s by a part of the device's name, as the makers give them."""


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


def utilisation(parameters: int, tokens_per_second: float, peak: float | None, workers: int) -> float | None:
    """Model FLOPs utilisation: a share of the workers' peak."""
    return None if not peak else 6.0 * parameters * tokens_per_second / (peak * workers)


def memory_bytes(device: torch.device) -> int:
    """Most memory that this process had: on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
