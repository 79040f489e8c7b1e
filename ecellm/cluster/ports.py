"""Which ports a Ray of ours uses, derived from a number that no other job has. Pure; nothing is opened here.

The one decision: a job owns a block of 500 ports below the range that systems hand out by themselves (32768 and up), so
that two jobs on one node do not meet, and a site's firewall can be opened for a range that is known.
"""

from __future__ import annotations

import sys

FIRST, SIZE, BLOCKS = 10_240, 500, 45
FIXED = (
    "gcs", "client", "dashboard", "node_manager", "object_manager", "runtime_env_agent", "agent_http", "agent_grpc",
    "metrics",
)  # fmt: skip
"""Ports with one listener each, from the block's first on. The last four hundred and more are for workers."""
_WORKERS_FROM = 20


def block_base(job: int, again: int = 0) -> int:
    """First port of the block of a job; `again` counts blocks that were found busy."""
    return FIRST + (job + again) % BLOCKS * SIZE


def port(base: int, name: str) -> int:
    """One port of the block. Raises ValueError for a name that is none of FIXED."""
    return base + FIXED.index(name)


def fixed_ports(base: int) -> range:
    """The ports that must be free on every node."""
    return range(base, base + len(FIXED))


def ray_options(base: int, *, head: bool, dashboard: bool) -> list[str]:
    """Options of `ray start` for a node of this block."""
    options = [
        f"--node-manager-port={port(base, 'node_manager')}",
        f"--object-manager-port={port(base, 'object_manager')}",
        f"--runtime-env-agent-port={port(base, 'runtime_env_agent')}",
        f"--dashboard-agent-listen-port={port(base, 'agent_http')}",
        f"--dashboard-agent-grpc-port={port(base, 'agent_grpc')}",
        f"--metrics-export-port={port(base, 'metrics')}",
        f"--min-worker-port={base + _WORKERS_FROM}",
        f"--max-worker-port={base + SIZE - 1}",
    ]
    if head:
        options += [
            "--head", f"--port={port(base, 'gcs')}", f"--ray-client-server-port={port(base, 'client')}",
            f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={port(base, 'dashboard')}",
        ]  # fmt: skip
    return options


if __name__ == "__main__":  # HEAD-OR-WORKER BASE [anything for a dashboard]: one option a line, for slurm/ray_node.sh
    kind, base, dashboard = [*sys.argv[1:], ""][:3]
    sys.stdout.write("\n".join(ray_options(int(base), head=kind == "head", dashboard=bool(dashboard))) + "\n")
