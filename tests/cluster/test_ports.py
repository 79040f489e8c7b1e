"""Ports of a job: derived, apart from each other, below what systems hand out."""

from __future__ import annotations

from ecellm.cluster.ports import BLOCKS, FIXED, SIZE, block_base, fixed_ports, port, ray_options


def test_jobs_in_a_row_do_not_meet() -> None:
    used = [set(range(block_base(job), block_base(job) + SIZE)) for job in range(1000, 1000 + BLOCKS)]
    assert len(set.union(*used)) == BLOCKS * SIZE
    assert min(min(one) for one in used) > 10_000
    assert max(max(one) for one in used) < 32_768


def test_a_busy_block_has_another_behind_it() -> None:
    assert block_base(7, again=1) == block_base(8)
    assert block_base(7, again=BLOCKS) == block_base(7)


def test_every_option_has_a_port_of_its_own() -> None:
    base = block_base(42)
    options = ray_options(base, head=True, dashboard=True)
    ports = [int(word.partition("=")[2]) for word in options if "port=" in word]
    assert len(set(ports)) == len(ports) == len(FIXED) + 2
    workers = range(ports[6], ports[7] + 1) if "--min-worker-port" in options[6] else range(0)
    assert len(workers) > 400
    assert not set(workers) & set(fixed_ports(base))
    assert f"--port={port(base, 'gcs')}" in options


def test_only_a_head_has_the_heads_ports() -> None:
    said = " ".join(ray_options(block_base(1), head=False, dashboard=True))
    assert "--head" not in said
    assert "dashboard-port" not in said
