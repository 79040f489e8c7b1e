"""How long training stands still for a checkpoint, in the background and without.

Compared: seconds that `Keeper.save` holds up a training loop, publishing in the background and waiting for the end,
for the same 0.5 GB of state (fp32 weights and both moments of a 42-million-parameter Llama), to an S3 server in a
process of its own behind a proxy that adds 50 ms to every request. Between two saves the loop "trains" for as long as
a publish takes (it sleeps), as a run that saves every few hundred steps does. Saves of the two in turn. Figure: stall
in the background over stall without, median.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ecellm.config.schema import Checkpoint
from ecellm.config.schema import Storage as Settings
from ecellm.storage.s3 import S3Storage
from ecellm.train.keeping import Keeper, position_of
from ecellm.train.plain import PlainEngine
from tests.bench._common import figure, llama, say, spread
from tests.storage.faults import Proxy
from tests.train.toys import ToyTokens, toy_run

LATENCY_S, ROUNDS = 0.05, 4
SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def run() -> Any:
    """The ratio of stalls."""
    with s3_behind_proxy(LATENCY_S) as (root, _):
        model = llama(hidden=512, layers=8, heads=8, vocabulary=32_000)
        state = 3 * 4 * sum(p.numel() for p in model.parameters())
        say(f"{state / 1e9:.2f} GB of state")
        engine = PlainEngine(model, toy_run(), torch.device("cpu"))
        ways = {name: _keeper(f"{root}/{name}", name == "background") for name in ("background", "waiting")}
        stalls: dict[str, list[float]] = {name: [] for name in ways}
        pause = 0.0
        for turn in range(ROUNDS + 1):
            for name, keeper in ways.items():
                began = time.perf_counter()
                keeper.save(engine, turn + 1, wait=False)
                stall = time.perf_counter() - began
                if turn:  # the first allocates the copy's memory, once in a run
                    stalls[name].append(stall)
                if name == "waiting":
                    pause = stall
                else:
                    time.sleep(max(pause, 20.0))
                    keeper.collect(wait=True)
            say(f"round {turn}: " + ", ".join(f"{name} {found[-1]:.2f} s" for name, found in stalls.items() if found))
    ratios = [a / b for a, b in zip(stalls["background"], stalls["waiting"], strict=True)]
    ratio = statistics.median(ratios)
    return figure(
        ratio, "of the synchronous stall", versus=1.0, goal="at most 0.1", holds=ratio <= 0.1 and state >= 5e8,
        how=__doc__, state_gb=state / 1e9, seconds={name: spread(found) for name, found in stalls.items()},
        samples=ratios,
    )  # fmt: skip


def _keeper(root: str, background: bool) -> Keeper:
    run = toy_run(root, checkpoint=Checkpoint(every=1, background=background, tolerate=0))
    return Keeper(
        run=run, storage=S3Storage(root, Settings()), position=position_of(run, ToyTokens(8)), attempt=1,
        dtype="float32", side={"config.json": b"{}"}, say=say,
    )  # fmt: skip


@contextmanager
def s3_behind_proxy(latency: float = 0.0) -> Iterator[tuple[str, Proxy]]:
    """An empty prefix on an S3 server in another process, and the proxy before it."""
    import boto3

    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    proxy = Proxy(("127.0.0.1", int(server.stdout.readline())), latency=latency)
    before = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": proxy.url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
    }  # fmt: skip
    try:
        boto3.client("s3").create_bucket(Bucket="bench")
        yield "s3://bench/run", proxy
    finally:
        os.environ.clear()
        os.environ |= before
        proxy.close()
        server.terminate()
        server.wait()
