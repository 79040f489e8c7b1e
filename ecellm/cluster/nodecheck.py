"""What one node of an allocation says of itself before Ray starts there: `python -m ecellm.cluster.nodecheck …`.

It looks, prints one line of JSON and leaves with 0; `bringup` compares the nodes and judges. The one decision: every
node reads, through the run's own storage, a file that the first node has just written. That is the one proof that
they see the same place, be it a shared file system or a bucket.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ecellm.cluster.ports import BLOCKS, block_base, fixed_ports
from ecellm.nodes import code_digest
from ecellm.provenance import versions
from ecellm.storage.open import open_storage

SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface (netdevice(7))."""
CANARY_S = 20.0
"""Longest wait for the file, in seconds: a network file system may show it late."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node's facts; sizes in bytes, `clock` in seconds since 1970."""

    name: str
    address: str
    clock: float
    cpus: int
    gpus: int
    gpus_seen: int | None
    """GPUs that the driver sees; None where there is no nvidia-smi to ask."""
    memory: int
    temporary_free: int
    shared_memory_free: int
    open_files: int
    busy: list[int]
    """Numbers of port blocks, counted from the job's own, that something listens in."""
    canary: str = ""
    """What is wrong with the canary; empty: it was read."""
    code: str = ""
    """Digest of this package's files."""
    versions: dict[str, str] = field(default_factory=dict)


def look(*, out: str, canary: str, nonce: str, job: int, temporary: str, peers: Sequence[str], interface: str) -> Node:
    """Examine this machine. `peers` are two nodes' names; the address is chosen towards the one that is not its own."""
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    where = temporary
    while not os.path.isdir(where):
        where = os.path.dirname(where) or "/"
    shm = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    return Node(
        name=name,
        address=own_address(other(peers, name), interface),
        clock=time.time(),
        cpus=int(os.environ.get("SLURM_CPUS_ON_NODE") or os.cpu_count() or 1),
        gpus=int(os.environ.get("SLURM_GPUS_ON_NODE") or 0),
        gpus_seen=gpus_seen(),
        memory=_memory(),
        temporary_free=writable_bytes(where),
        shared_memory_free=shm,
        open_files=_open_files(),
        busy=busy_blocks(job),
        canary=read_canary(out, canary, nonce),
        code=code_digest(),
        versions={name: version for name, version in versions().items() if name in ("python", "ray", "torch")},
    )


def other(peers: Sequence[str], own: str) -> str:
    """The first name that is not this node's own: many a /etc/hosts leads the own one to loopback, as Debian's does."""
    return next((peer for peer in peers if peer.partition(".")[0] != own.partition(".")[0]), own)


def own_address(peer: str, interface: str = "") -> str:
    """This node's IPv4 address: of a named interface, else the one that a packet to `peer` would leave from.

    Empty where the interface has none; `bringup` tells of it.
    """
    if interface:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
            return socket.inet_ntoa(found[20:24])
        return ""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))  # nothing is sent
        address = str(probe.getsockname()[0])
        if not address.startswith("127."):
            return address
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
        if not address.startswith("127."):
            return address
    return "127.0.0.1"


def busy_blocks(job: int) -> list[int]:
    """Which of the blocks that follow the job's own have a listener on a port that must be free."""
    listening = listeners()
    return [again for again in range(BLOCKS) if listening & set(fixed_ports(block_base(job, again)))]


def listeners() -> set[int]:
    """TCP ports of this machine that something listens on, whoever owns it."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as table:
            rows = (line.split() for line in table)
            found |= {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == "0A"}
    return found


def read_canary(out: str, key: str, nonce: str) -> str:
    """What is wrong with the file that the first node wrote; empty where all is right."""
    deadline = time.monotonic() + CANARY_S
    while True:
        try:
            said = open_storage(out).read(key).decode(errors="replace")
        except FileNotFoundError:
            said = ""
        except Exception as trouble:  # judged by bringup, which has all nodes before it
            return f"{str(trouble).splitlines()[0]}"
        if said == nonce:
            return ""
        if time.monotonic() > deadline:
            return f"sees another {key} there" if said else "does not see what the first node wrote there"
        time.sleep(0.5)


def writable_bytes(folder: str) -> int:
    """Free bytes of a folder that can be written; 0 where it cannot."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return 0
    return shutil.disk_usage(folder).free


def gpus_seen() -> int | None:
    """GPUs that nvidia-smi lists for this process's allocation."""
    if shutil.which("nvidia-smi") is None:
        return len(glob.glob("/dev/nvidia[0-9]*")) or None
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in said.stdout.splitlines()) if said.returncode == 0 else 0


def _memory() -> int:
    """Bytes that the job may use here: Slurm's grant, or the machine's."""
    granted = os.environ.get("SLURM_MEM_PER_NODE", "")
    if granted.isdigit() and int(granted):
        return int(granted) << 20
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _open_files() -> int:
    import resource

    return int(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def main() -> None:
    """Print this node's line."""
    # slurm/ray_look.sh hears the notice that goes to all steps; an image's runtime may forget that it is ignored.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="ecellm.cluster.nodecheck")
    for name in ("out", "canary", "nonce", "job", "temporary", "peers", "interface"):
        parser.add_argument(f"--{name}", default="")
    asked = parser.parse_args()
    node = look(
        out=asked.out, canary=asked.canary, nonce=asked.nonce, job=int(asked.job), temporary=asked.temporary,
        peers=asked.peers.split(","), interface=asked.interface,
    )  # fmt: skip
    sys.stdout.write(json.dumps(asdict(node)) + "\n")


if __name__ == "__main__":
    main()
