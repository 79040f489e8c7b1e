"""From an allocation's nodes to a plan for its Ray, or the one cause why there will be none. Shell scripts call it.

`begin` checks the run and writes a canary through the run's storage; each node then looks at itself (`nodecheck`); and
`judge` compares what they said. Nothing is started here. The one decision: all that can be known before Ray starts is
asked before Ray starts, since what fails inside a cluster that is half up is told late or never.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ecellm.cluster.nodecheck import Node
from ecellm.cluster.ports import BLOCKS, SIZE, block_base, fixed_ports, port
from ecellm.config.schema import Run
from ecellm.errors import ClusterError, ConfigError, EcellmError, StorageError
from ecellm.plan import plan as estimate
from ecellm.plan import stop_seconds
from ecellm.storage.base import is_remote
from ecellm.storage.open import open_storage

MIB = 1 << 20
TEMPORARY = 512 * MIB
"""Least free room for Ray's sessions and logs, in bytes."""
SKEW_S = 120.0
"""Largest difference between two clocks. S3 refuses signatures at 15 minutes; half of that is no reserve."""
OBJECT_STORE = 2048 * MIB
"""Ray's object store of a node, at most. Blocks of rows and tokens are small, and what is too large is spilled."""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """The file that all nodes must see, and what it holds."""

    out: str
    key: str
    nonce: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A Ray for one job: the head comes first in `nodes`."""

    base: int
    nodes: tuple[Node, ...]
    object_store: int
    overrides: tuple[str, ...]

    @property
    def address(self) -> str:
        """Where the head will answer."""
        return f"{self.nodes[0].address}:{port(self.base, 'gcs')}"


def begin(run: Run, job: str) -> Canary:
    """Write the canary. Raises StorageError where OUT cannot be written."""
    out = run.out if is_remote(run.out) else os.path.abspath(run.out)
    canary = Canary(out=out, key=f".bringup/{job}", nonce=secrets.token_hex(16))
    try:
        open_storage(out, run.storage).write(canary.key, canary.nonce.encode())
    except OSError as trouble:
        raise StorageError(f"{out}: cannot write", found=str(trouble), mend="check out in the run file") from trouble
    return canary


def judge(run: Run, canary: Canary, said: str, heard: str, names: Sequence[str], job: int, given: set[str]) -> Plan:
    """Compare the nodes.

    Args:
        said: lines of `nodecheck`, each with its task's number, as `srun --label` prints them.
        heard: what the nodes said on standard error, labelled likewise.
        names: the nodes of the allocation, the head first.
        job: number of the job, which the ports are derived from.
        given: settings that the user gave on the command line, as dotted paths; they are left alone.

    Raises:
        StorageError: OUT is not the same place for all.
        ClusterError: a node does not answer or cannot be used.
        ConfigError: the run asks for what the allocation has not got.
    """
    open_storage(canary.out, run.storage).delete(canary.key)
    nodes = _read(said, heard, names)
    faults = [fault for rule in (_storage, _copies, _clocks, _rooms, _gpus) for fault in rule(nodes, canary)]
    if faults:
        raise _first(faults)
    base = _free_block(nodes, job)
    shm = min(node.shared_memory_free for node in nodes)
    memory = min(node.memory for node in nodes)
    return Plan(
        base=base, nodes=tuple(nodes), object_store=max(80 * MIB, min(OBJECT_STORE, memory // 10, shm // 2)),
        overrides=tuple(_workers(run, nodes, given)),
    )  # fmt: skip


def short_notice(run: Run, nodes: Sequence[Node], notice: int) -> str:
    """A warning where a stop needs longer than the `notice` seconds before the time limit; empty where it has them."""
    gpus = sum(node.gpus for node in nodes)
    try:
        needed = estimate(run, gpus=gpus or run.cluster.workers, nodes=len(nodes)).stop_seconds
        base = f"a checkpoint of {run.model.base} from {len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}"
    except ConfigError:
        needed, base = stop_seconds(run), f"{run.model.base}, of unknown size,"
    if needed <= notice:
        return ""
    return (
        f"{base} may need {needed} s to stop in, and the notice comes {notice} s before the time limit: a slow stop "
        f"would lose the steps since the last checkpoint. Submit with SBATCH_SIGNAL=B:USR1@{needed} sbatch ..., or "
        f"with sbatch --signal=B:USR1@{needed} and ECELLM_SIGNAL_S={needed}"
    )


def shell(plan: Plan, warning: str = "") -> str:
    """The plan as assignments that bash can evaluate."""
    gpus = sum(node.gpus for node in plan.nodes)
    lines = [
        f"address={shlex.quote(plan.address)}", f"base={plan.base}", f"object_store={plan.object_store}",
        f"total_cpus={sum(node.cpus for node in plan.nodes)}", f"total_gpus={gpus}",
        f"derived=({' '.join(shlex.quote(word) for word in plan.overrides)})", f"warning={shlex.quote(warning)}",
    ]  # fmt: skip
    for name in ("address", "cpus", "gpus"):
        pairs = (f"[{shlex.quote(node.name)}]={shlex.quote(str(getattr(node, name)))}" for node in plan.nodes)
        lines.append(f"declare -gA node_{name}=({' '.join(pairs)})")
    return "\n".join(lines) + "\n"


def _read(said: str, heard: str, names: Sequence[str]) -> list[Node]:
    found: dict[int, Node] = {}
    for line in said.splitlines():
        match = re.match(r"\s*(\d+): (\{.*)", line)
        if match:
            found[int(match.group(1))] = Node(**json.loads(match.group(2)))
    silent = [number for number in range(len(names)) if number not in found]
    if silent:
        raise _silent(silent[0], heard, names, len(silent))
    return [found[number] for number in range(len(names))]


def _silent(number: int, heard: str, names: Sequence[str], how_many: int) -> ClusterError:
    # How srun tells that we ended it is no cause.
    lines = [line for line in heard.splitlines() if not re.search(r"Killed|Terminated|CANCELLED|aborted", line)]
    own = [line.partition(":")[2].strip() for line in lines if re.match(rf"\s*{number}: ", line)]
    # Without a line of its own the node was not reached at all, and srun speaks for it.
    told = [line for line in own if line] or [line for line in lines if names[number] in line or "error" in line]
    others = f" (and {how_many - 1} more)" if how_many > 1 else ""
    return ClusterError(
        f"node {names[number]}{others} cannot run this code: {told[-1] if told else 'it did not answer in time'}",
        expected="the same virtual environment, image and checkout on every node",
        mend="put ECELLM_VENV or ECELLM_IMAGE on a file system that all nodes see; look at the node with srun",
    )


def _storage(nodes: Sequence[Node], canary: Canary) -> Iterator[EcellmError]:
    for node in nodes:
        if node.canary:
            yield StorageError(
                f"node {node.name}, {canary.out}: {node.canary}",
                expected="one place for all nodes: a shared folder, or an s3:// prefix that all may read and write",
                mend="give such a place with --out",
            )


def _copies(nodes: Sequence[Node], canary: Canary) -> Iterator[EcellmError]:
    first = nodes[0]
    for node in nodes[1:]:
        if node.versions != first.versions:
            other = [f"{name} {node.versions.get(name)} against {version} on {first.name}"
                     for name, version in first.versions.items() if node.versions.get(name) != version]  # fmt: skip
            yield ClusterError(
                f"node {node.name} has {', '.join(other)}", expected="one environment on all nodes",
                mend="install from constraints.txt on every node, or share one environment",
            )  # fmt: skip
        elif node.code != first.code:
            yield ClusterError(
                f"node {node.name} has another copy of this code than {first.name}",
                found=f"{node.code} and {first.code}", expected="the same files on all nodes",
                mend="submit from a folder that all nodes share, or install the same version everywhere",
            )  # fmt: skip


def _clocks(nodes: Sequence[Node], canary: Canary) -> Iterator[EcellmError]:
    earliest, latest = (pick(nodes, key=lambda node: node.clock) for pick in (min, max))
    apart = latest.clock - earliest.clock
    if apart > SKEW_S:
        yield ClusterError(
            f"the clocks of {earliest.name} and {latest.name} are {apart:.0f} s apart",
            expected=f"at most {SKEW_S:.0f} s: S3 refuses requests of a wrong time, and logs could not be compared",
            mend="have the time service of these nodes repaired",
        )


def _rooms(nodes: Sequence[Node], canary: Canary) -> Iterator[EcellmError]:
    for node in nodes:
        if node.temporary_free < TEMPORARY:
            yield ClusterError(
                f"node {node.name} has {node.temporary_free // MIB} MiB in its temporary folder",
                expected=f"{TEMPORARY // MIB} MiB or more that this user may write",
                mend="set ECELLM_TMP to a local folder with room, or have the node's /tmp cleaned",
            )
        if not node.address:
            yield ClusterError(
                f"node {node.name} has no such network interface", expected="an IPv4 address on ECELLM_INTERFACE",
                mend="correct ECELLM_INTERFACE (ip -brief address shows the names), or leave it unset",
            )  # fmt: skip
        if len(nodes) > 1 and node.address.startswith("127."):
            yield ClusterError(
                f"node {node.name} knows itself as {node.address} only", expected="an address that other nodes reach",
                mend="set ECELLM_INTERFACE to its network interface",
            )  # fmt: skip


def _gpus(nodes: Sequence[Node], canary: Canary) -> Iterator[EcellmError]:
    for node in nodes:
        if node.gpus_seen is not None and node.gpus_seen < node.gpus:
            yield ClusterError(
                f"node {node.name} shows {node.gpus_seen} of its {node.gpus} GPUs",
                expected="as many as Slurm granted",
                mend=f"have {node.name} drained, and submit with --exclude={node.name}",
            )


def _first(faults: list[EcellmError]) -> EcellmError:
    """The first fault; the others are told below it."""
    first = faults[0]
    also = [f"also: {'; '.join(fault.what for fault in faults[1:])}"] if faults[1:] else []
    found = "; ".join([first.found, *also] if first.found else also)
    return type(first)(first.what, found=found, expected=first.expected, mend=first.mend)


def _free_block(nodes: Sequence[Node], job: int) -> int:
    busy = {again for node in nodes for again in node.busy}
    for again in range(BLOCKS):
        if again not in busy:
            return block_base(job, again)
    ports = fixed_ports(block_base(job))
    raise ClusterError(
        "no block of ports is free on all nodes", found=f"listeners in all {BLOCKS} blocks, as {ports[0]}",
        expected=f"{len(ports)} free ports in a block of {SIZE}", mend="ask for whole nodes (--exclusive)",
    )  # fmt: skip


def _workers(run: Run, nodes: Sequence[Node], given: set[str]) -> Iterator[str]:
    """As many workers as the allocation holds, where the user did not say how many. Raises ConfigError."""
    cluster, gpus = run.cluster, sum(node.gpus for node in nodes)
    on_gpus = bool(cluster.gpus_per_worker) if "cluster.gpus_per_worker" in given else gpus > 0
    if cluster.gpus_per_worker and not gpus:
        raise ConfigError(
            "cluster.gpus_per_worker: the run wants GPUs", found="none in this allocation",
            expected="sbatch --gpus-per-node=N", mend="or run it on CPUs with --cluster.gpus_per_worker 0",
        )  # fmt: skip
    each = cluster.cpus_per_worker
    rooms = {node.name: min(node.cpus // each, node.gpus if on_gpus else node.cpus) for node in nodes}
    if "cluster.workers" in given or "cluster" in given:
        wanted = {"all nodes together": cluster.workers} if cluster.workers > sum(rooms.values()) else {}
    else:
        wanted = {node.name: node.gpus if on_gpus else 1 for node in nodes}
        wanted = {name: workers for name, workers in wanted.items() if workers > rooms[name]}
        yield f"--cluster.workers={sum(rooms.values())}"
        if on_gpus and not cluster.gpus_per_worker:
            yield "--cluster.gpus_per_worker=1"
    for name, workers in wanted.items():
        raise ConfigError(
            f"cluster: {workers} workers with {each} CPUs{' and a GPU' if on_gpus else ''} each do not fit on {name}",
            found=", ".join(f"{node.name} {node.cpus} CPUs {node.gpus} GPUs" for node in nodes),
            expected="room for all workers", mend="give sbatch more --cpus-per-task, --gpus-per-node or --nodes, or "
            "set cluster.cpus_per_worker and cluster.workers to what there is",
        )  # fmt: skip
