"""How much goes into one forward pass: found out on the machine, not guessed by the user.

Two numbers: tokens of a packed pass, and memory for the keys and values of rows that are decoded. Tokens begin small
and double for as long as that makes the pass faster by more than noise; both halve when memory runs out. The one
decision: they change speed, never answers, so they are no part of a request's key.
"""

from __future__ import annotations

import os
from typing import Any

import torch

FIRST_CPU, FIRST_GPU = 512, 4096
MOST_CPU, MOST_GPU = 4096, 65_536
"""Tokens of one pass: where the search begins and where it ends."""
ROWS_CPU, ROWS_GPU = 96, 512
"""Most rows that are decoded together."""
SHARE = 0.25
"""Part of the free memory that one process takes for keys and values, on a CPU; other processes do the same."""
SHARE_GPU = 0.7
LEAST_TOKENS = 64
_BETTER = 1.03


class Budget:
    """The budget of one process.

    Args:
        bytes_per_token: memory that one token's keys and values take over all layers.
        memory: bytes for keys and values of all slots.
        gpu: whether the model lies on a GPU.
        most_tokens: highest number of tokens in a pass; 0: by the device.
        most_rows: highest number of rows that are decoded together; 0: by the device.
    """

    def __init__(
        self, *, bytes_per_token: int, memory: int, gpu: bool = False, most_tokens: int = 0, most_rows: int = 0
    ) -> None:
        self.bytes_per_token, self.memory = bytes_per_token, memory
        self.most_tokens = most_tokens or (MOST_GPU if gpu else MOST_CPU)
        self.most_rows = most_rows or (ROWS_GPU if gpu else ROWS_CPU)
        self.tokens = min(FIRST_GPU if gpu else FIRST_CPU, self.most_tokens)
        self._rates: dict[int, float] = {}
        self._settled = self.tokens == self.most_tokens

    def rows(self, capacity: int, wanted: int) -> int:
        """Rows to decode together when each may take `capacity` tokens; at least one."""
        fit = self.memory // max(1, capacity * self.bytes_per_token)
        return max(1, min(fit, self.most_rows, wanted))

    def saw(self, tokens: int, seconds: float) -> None:
        """Learn from a pass that took so long. Passes that are not about full say nothing."""
        if self._settled or tokens < 0.8 * self.tokens or seconds <= 0:
            return
        rate = self._rates[self.tokens] = max(self._rates.get(self.tokens, 0.0), tokens / seconds)
        before = self._rates.get(self.tokens // 2, 0.0)
        if rate < before * _BETTER:
            self._settled = True
            if rate < before:
                self.tokens //= 2
        elif self.tokens * 2 <= self.most_tokens:
            self.tokens *= 2
        else:
            self._settled = True

    def shrink(self) -> bool:
        """Memory ran out: take half. False where there is nothing left to halve."""
        if self.tokens <= LEAST_TOKENS and self.most_rows <= 1:
            return False
        self.tokens = max(LEAST_TOKENS, self.tokens // 2)
        self.most_rows = max(1, self.most_rows // 2)
        self.memory //= 2
        self._settled = True
        return True


def budget_for(model: Any, *, workers: int = 1, most_tokens: int = 0, most_rows: int = 0) -> Budget:
    """The budget of a model on its device, which it shares with `workers` - 1 others like it on a CPU."""
    parameter = next(model.parameters())
    gpu = parameter.device.type == "cuda"
    if gpu:
        free, _ = torch.cuda.mem_get_info(parameter.device)
        memory = int(free * SHARE_GPU)
    else:
        memory = int(free_ram() * SHARE / max(1, workers))
    return Budget(
        bytes_per_token=bytes_per_token(model.config, parameter.element_size()), memory=memory, gpu=gpu,
        most_tokens=most_tokens, most_rows=most_rows,
    )  # fmt: skip


def bytes_per_token(config: Any, size: int) -> int:
    """Bytes of one token's keys and values over all layers, by a transformers config and the size of a number."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * dim * size)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a torch error says that memory ran out, on either device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def free_ram() -> int:
    """Bytes that processes of this machine could still take."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
