"""Gloo ranks that start in half a second and can be killed: forked from a process that has imported everything."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ecellm.records import World

FORK = multiprocessing.get_context("fork")


class Ranks:
    """`work(world, *args)` on forked ranks."""

    def __init__(self, size: int, work: Callable[..., None], *args: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._processes = [
            FORK.Process(target=_rank, args=(World(rank=rank, size=size), port, work, args), daemon=True)
            for rank in range(size)
        ]
        for process in self._processes:
            process.start()

    def kill(self, rank: int) -> None:
        """SIGKILL one."""
        pid = self._processes[rank].pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL all, and wait."""
        for rank in range(len(self._processes)):
            self.kill(rank)
        self.codes(60)

    def codes(self, seconds: float) -> list[int | None]:
        """Exit codes after so long; None of one that still runs."""
        for process in self._processes:
            process.join(seconds)
        return [process.exitcode for process in self._processes]


def _rank(world: World, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(world.rank), "WORLD_SIZE": str(world.size), "LOCAL_RANK": str(world.rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu",
    }  # fmt: skip
    dist.init_process_group("gloo", rank=world.rank, world_size=world.size)
    work(world, *args)
    # Others may still be asking for something; leaving without a goodbye would look like a fault.
    dist.barrier()
    os._exit(0)
