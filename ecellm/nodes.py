"""Whether all nodes of a cluster that is joined have this very code and see OUT as the same place. A Ray door.

Launch scripts of ours check nodes before Ray starts (`cluster.nodecheck`); on other clusters this is the first that is
known of them. The one decision: a task runs on every node and reads, through the run's own storage, what the driver has
just written; what a node cannot do is told now and by name, and not hours later by whichever worker landed there.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from ecellm.config.schema import Run
from ecellm.errors import ClusterError, StorageError
from ecellm.storage.base import is_remote
from ecellm.storage.open import open_storage

CHECKED = "ECELLM_NODES_CHECKED"
"""Set by a launch script that has done the same already."""
_SECONDS = 90.0


def code_digest() -> str:
    """sha256 over the package's Python files, shortened: nodes with another copy show another one."""
    package = Path(__file__).resolve().parent
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def see(out: str, key: str, nonce: str) -> tuple[str, str]:
    """What a node says: the digest of its code, and what is wrong with OUT there (nothing: an empty text)."""
    try:
        said = open_storage(out).read(key).decode(errors="replace")
    except FileNotFoundError:
        return code_digest(), "does not see what the driver wrote there"
    except Exception as trouble:  # told by the driver, with the node's name
        return code_digest(), str(trouble).splitlines()[0]
    return code_digest(), "" if said == nonce else "sees another file there"


def check_nodes(run: Run) -> None:
    """Ask every living node. Call it with Ray connected to a cluster.

    Raises:
        StorageError: OUT is not the same place for all.
        ClusterError: a node has no such code, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    every: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = {node["NodeID"]: str(node["NodeManagerAddress"]) for node in every if node["Alive"]}
    if len(nodes) < 2 or os.environ.get(CHECKED):
        return
    out = run.out if is_remote(run.out) else os.path.abspath(run.out)
    storage, key, nonce = open_storage(out, run.storage), f".bringup/{secrets.token_hex(8)}", secrets.token_hex(16)
    storage.write(key, nonce.encode())
    try:
        asked = {
            ray.remote(num_cpus=0, max_retries=0)(see)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False))
            .remote(out, key, nonce): address
            for name, address in nodes.items()
        }
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS)
        if late:
            raise _unable(asked[late[0]], f"no answer for {_SECONDS:.0f} s")
        for ref in done:
            try:
                digest, trouble = ray.get(ref)
            except ray.exceptions.RayError as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                raise _unable(asked[ref], lines[-1] if lines else type(error).__name__) from error
            _judge(asked[ref], digest, trouble, out)
    finally:
        storage.delete(key)


def same_code(digest: str, address: str = "") -> None:
    """For a worker on a node that came later than `check_nodes`. Raises ClusterError where its code is another."""
    if digest != code_digest():
        raise _unable(address or socket.gethostname(), f"its code is {code_digest()}, the driver's {digest}")


def _judge(address: str, digest: str, trouble: str, out: str) -> None:
    if trouble:
        raise StorageError(
            f"node {address}, {out}: {trouble}",
            expected="one place for all nodes: a shared folder, or an s3:// prefix that all may read and write",
            mend="give such a place with --out",
        )
    if digest != code_digest():
        raise _unable(address, f"its code is {digest}, the driver's {code_digest()}")


def _unable(address: str, cause: str) -> ClusterError:
    return ClusterError(
        f"node {address} cannot run this code", found=cause, expected="the same version of ecellm on every node",
        mend="send the job with `ecellm submit`, whose code travels, or put the same image on all nodes",
    )  # fmt: skip
