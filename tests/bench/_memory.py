"""Measures what training takes: the most resident memory of each ZeRO-3 rank over its memory with no model in it.

A common part of benchmarks. Each rank is a process of its own; freed blocks go back to the system at once
(`MALLOC_MMAP_THRESHOLD_`), so that resident memory is what lives, as a GPU's allocator would count it.
"""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
SMALL = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 128,
         "num_attention_heads": 3, "num_key_value_heads": 3}  # fmt: skip


def measure(shape: dict[str, Any], *, ranks: int, samples: int, length: int, lora: int = 0, **train: Any) -> list[Any]:
    """Each rank's bytes: `model` once it is built and partitioned, `peak` over two optimizer steps.

    Args:
        shape: settings of a transformers LlamaConfig.
        samples, length: one padded micro-step of one rank, every position but the first with a loss.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    task = json.dumps({"shape": shape, "samples": samples, "length": length, "lora": lora, "train": train})
    env = os.environ | {
        "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1",
        "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    words = [sys.executable, "-m", "tests.bench._memory", task]
    processes = [
        subprocess.Popen(
            words, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(ranks)
    ]
    said = [one.communicate()[0] for one in processes]
    if any(one.returncode for one in processes):
        raise RuntimeError(f"a rank failed: {[one.returncode for one in processes]}")
    return [json.loads(text.strip().splitlines()[-1]) for text in said]


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status, as VmRSS or VmHWM."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def reset_peak() -> None:
    """Start VmHWM anew (proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def rank_main(task: dict[str, Any]) -> None:
    """What one rank does."""
    import torch
    import torch.distributed as dist
    from transformers import LlamaConfig, LlamaForCausalLM

    from ecellm.config.schema import Lora, Model, Run, Train
    from ecellm.data.batch import collate
    from ecellm.records import World
    from ecellm.train.lora import add_adapters
    from ecellm.train.loss import piece_tokens
    from ecellm.train.zero3 import Zero3Engine

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    world = World(rank=dist.get_rank(), size=dist.get_world_size(), local_rank=dist.get_rank())
    lora = Lora(rank=task["lora"]) if task["lora"] else None
    run = Run(
        name="memory", out="unused", model=Model(base="tiny", lora=lora),
        train=Train(**({"batch_size": 64, "micro_batch_size": task["samples"]} | task["train"])),
    )  # fmt: skip

    def train(shape: dict[str, Any], samples: int, length: int) -> dict[str, int]:
        torch.manual_seed(0)
        before = memory("VmRSS")
        config = LlamaConfig(**shape, pad_token_id=0, attn_implementation="sdpa")
        module: Any = LlamaForCausalLM(config)
        count = sum(parameter.numel() for parameter in module.parameters())
        module = add_adapters(module, lora) if lora else module
        engine = Zero3Engine(module, run, world, torch.device("cpu"), bf16=False)
        del module
        built = memory("VmRSS") - before
        ids = torch.randint(3, config.vocab_size, (samples, length), dtype=torch.int32).numpy()
        weight = 1.0 / (samples * (length - 1) * world.size)
        pieces = -(-samples * length // piece_tokens(config.vocab_size))
        reset_peak()
        for _ in range(2):
            batch = collate(
                [(row[:1], row[1:]) for row in ids], [(0.0, weight)] * samples, pad_id=0, encoder_decoder=False,
                pieces=pieces,
            )  # fmt: skip
            engine.forward_backward([batch, batch])
            engine.step(1e-4)
        trained = sum(parameter.numel for parameter in engine.parameters()[0])
        peak = memory("VmHWM") - before
        return {"model": built, "peak": peak, "parameters": count, "trained": trained, "base": before}

    # A first small run loads what is loaded at first use: it is no part of what a model takes.
    train({**task["shape"], **SMALL}, 2, 32)
    gc.collect()
    found = train(task["shape"], task["samples"], task["length"])
    dist.barrier()
    print(json.dumps(found))


if __name__ == "__main__":
    rank_main(json.loads(sys.argv[1]))
