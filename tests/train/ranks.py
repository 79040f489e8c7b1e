"""Real gloo ranks for tests: each a process of its own, on this machine."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ecellm.records import World


def run_ranks(size: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """`work(world, *args)` on `size` ranks; what each returned, in rank order. `work` is a module's function."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, args=(size, port, folder, work, args), nprocs=size)
        return [torch.load(os.path.join(folder, str(rank)), weights_only=False) for rank in range(size)]


def _rank(rank: int, size: int, port: int, folder: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    dist.init_process_group("gloo", rank=rank, world_size=size)
    result = work(World(rank=rank, size=size, local_rank=rank), *args)
    torch.save(result, os.path.join(folder, str(rank)))
    dist.barrier()
    dist.destroy_process_group()
