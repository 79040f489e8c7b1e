"""A Ray head of the test's own on loopback addresses, ended by its own pid. Never `ray stop`: other Rays live here.

The one decision: the token is in the environment before anything here imports Ray; a switch after the import has no
effect, and a Ray that finds a token of an earlier one in the home folder would turn authentication on by itself.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
IP = "127.0.0.2"
START_S = 120.0


def token() -> str:
    """Token of this test process, made once and handed on to every child."""
    os.environ["RAY_AUTH_MODE"] = "token"
    return os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))


def free_port(ip: str = IP) -> int:
    """A port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


class Head:
    """`ray start --head --block` as a child; a context. `jobs` is the job server's address where it has a dashboard."""

    def __init__(self, *options: str, dashboard: bool = False, cpus: int = 2, **environment: str) -> None:
        token()
        self.folder = Path(tempfile.mkdtemp(prefix="ech", dir="/tmp"))
        self.port, self.dashboard = free_port(), free_port("127.0.0.1")
        self.address, self.jobs = f"{IP}:{self.port}", f"http://127.0.0.1:{self.dashboard}"
        self.log = self.folder / "head.log"
        self._words = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={self.port}",
            f"--node-ip-address={IP}", f"--num-cpus={cpus}", f"--ray-client-server-port={free_port()}",
            f"--include-dashboard={str(dashboard).lower()}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}", "--object-store-memory=100000000", f"--temp-dir={self.folder}/r",
            f"--dashboard-agent-listen-port={free_port()}",  # the default is another Ray's on a machine with two
            "--disable-usage-stats", *options,
        ]  # fmt: skip
        path = (
            f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # an entrypoint's `python` comes from it
        )
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self.environment = kept | {"PATH": path, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._words, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in self.log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-2000:]
                self.__exit__()
                raise RuntimeError(f"the Ray head did not start\n{said}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        import psutil

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
        # Fake nodes outlive their head by a minute: ours are the processes that name our own folder.
        left = [
            one for one in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(one.info["cmdline"] or ())
        ]
        left += [child for one in left for child in one.children(recursive=True)]
        for one in left:
            try:
                one.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, 10)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def second_node(head: Head, ip: str = "127.0.2.1") -> Iterator[None]:
    """Another node of a head's cluster, on an address of its own."""
    words = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--address={head.address}",
        f"--node-ip-address={ip}", "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats",
        f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={head.folder}/r",
    ]  # fmt: skip
    log = head.folder / "second.log"
    with log.open("wb") as said:
        node = subprocess.Popen(
            words, env=head.environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text(errors="replace"):
            if node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the second node did not start\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(40)
