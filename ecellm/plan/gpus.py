"""Kinds of GPUs, their memory, speed and price. Data, not code; a table that people may correct."""

from __future__ import annotations

from dataclasses import dataclass

from ecellm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Gpu:
    """Usable memory in GiB, dense bf16 peak in operations a second (data sheets), and USD an hour, cheap and dear.

    Prices are of rented GPUs in late 2025, spot or committed to on-demand: an order of magnitude, not an offer.
    """

    memory: float
    peak: float
    cheap: float
    dear: float


GPUS = {
    "A10G": Gpu(22.5, 70e12, 0.40, 1.01),
    "L4": Gpu(22.5, 121e12, 0.30, 0.81),
    "L40S": Gpu(44.5, 362e12, 0.80, 1.86),
    "A100-40GB": Gpu(39.5, 312e12, 1.10, 2.75),
    "A100-80GB": Gpu(79.3, 312e12, 1.40, 3.43),
    "H100": Gpu(79.6, 989e12, 2.00, 6.88),
    "H200": Gpu(139.8, 989e12, 2.50, 7.91),
    "B200": Gpu(178.0, 2250e12, 4.00, 14.24),
}


def gpu_named(name: str) -> Gpu:
    """Raises ConfigError for a kind that is not known here."""
    if name not in GPUS:
        raise ConfigError(f"--gpu: unknown kind {name!r}", expected="one of " + ", ".join(GPUS))
    return GPUS[name]
