"""Nodes that disagree are refused before Ray starts, each with the one cause that a person can act on."""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecellm.cluster.bringup import MIB, Canary, Plan, begin, judge, shell, short_notice
from ecellm.cluster.nodecheck import Node, busy_blocks, listeners, look, main, own_address, read_canary
from ecellm.cluster.ports import block_base
from ecellm.config.schema import Run
from ecellm.errors import ClusterError, ConfigError, StorageError
from tests.data.made import make_run

ROOT = Path(__file__).resolve().parents[2]

NODE = Node(
    name="n1", address="10.0.0.1", clock=1000.0, cpus=8, gpus=0, gpus_seen=None, memory=64 << 30,
    temporary_free=20 << 30, shared_memory_free=8 << 30, open_files=65536, busy=[], code="c0",
    versions={"ray": "2.60.0"},
)  # fmt: skip


def judged(folder: Path, *changes: dict[str, Any], given: set[str] | None = None, **cluster: Any) -> Plan:
    """The plan for nodes n1, n2, … that differ from a good one as told."""
    run = make_run(str(folder), cluster=cluster)
    nodes = [
        dataclasses.replace(NODE, **{"name": f"n{i + 1}", "address": f"10.0.0.{i + 1}", **change})
        for i, change in enumerate(changes)
    ]
    said = "\n".join(f"{i}: {json.dumps(dataclasses.asdict(node))}" for i, node in enumerate(nodes))
    names = [node.name for node in nodes]
    return judge(run, begin(run, "1.0"), said, "", names, 1234, given or set())


def test_good_nodes_give_a_plan(tmp_path: Path) -> None:
    plan = judged(tmp_path, {}, {}, cpus_per_worker=2)
    assert plan.address == f"10.0.0.1:{block_base(1234)}"
    assert plan.overrides == ("--cluster.workers=8",)
    assert not list(tmp_path.glob(".bringup/*")), "the canary stays behind"


@pytest.mark.parametrize(
    ("change", "kind", "cause"),
    [
        ({"canary": "does not see what the first node wrote there"}, StorageError, "node n2.*does not see"),
        ({"clock": 1000.0 + 3600}, ClusterError, "clocks of n1 and n2 are 3600 s apart"),
        ({"temporary_free": 3 * MIB}, ClusterError, "n2 has 3 MiB in its temporary folder"),
        ({"address": ""}, ClusterError, "n2 has no such network interface"),
        ({"address": "127.0.0.1"}, ClusterError, "knows itself as 127.0.0.1 only"),
        ({"code": "c1"}, ClusterError, "n2 has another copy of this code"),
        ({"versions": {"ray": "2.9.0"}}, ClusterError, "ray 2.9.0 against 2.60.0 on n1"),
        ({"gpus": 8, "gpus_seen": 7}, ClusterError, "n2 shows 7 of its 8 GPUs"),
        ({"busy": list(range(45))}, ClusterError, "no block of ports is free"),
    ],
)
def test_each_fault_of_a_node_is_named(tmp_path: Path, change: dict[str, Any], kind: type, cause: str) -> None:
    with pytest.raises(kind, match=cause):
        judged(tmp_path, {}, change)


def test_several_faults_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"(?s)n2.*also: .*apart"):
        judged(tmp_path, {}, {"canary": "cannot be read", "clock": 9e9})


def test_a_busy_block_is_passed_over(tmp_path: Path) -> None:
    assert judged(tmp_path, {"busy": [0]}, {"busy": [1]}).base == block_base(1234, 2)


def test_a_silent_node_is_named_with_its_own_words(tmp_path: Path) -> None:
    run = make_run(str(tmp_path))
    canary = begin(run, "1.0")
    good = f"0: {json.dumps(dataclasses.asdict(NODE))}"
    with pytest.raises(ClusterError, match=r"node n2 cannot run this code: .*No module named ecellm"):
        judge(run, canary, good, "1: /x/python: No module named ecellm\n", ["n1", "n2"], 1, set())
    with pytest.raises(ClusterError, match=r"n2 .*it did not answer in time"):
        judge(run, canary, good, "", ["n1", "n2"], 1, set())
    with pytest.raises(ClusterError, match=r"node n1 .and 1 more"):
        judge(run, canary, "", "", ["n1", "n2"], 1, set())


def test_workers_fill_the_allocation(tmp_path: Path) -> None:
    gpus = {"gpus": 8, "gpus_seen": 8, "cpus": 64}
    plan = judged(tmp_path, gpus, gpus, cpus_per_worker=8)
    assert plan.overrides == ("--cluster.workers=16", "--cluster.gpus_per_worker=1")
    given = judged(tmp_path, gpus, gpus, given={"cluster.workers"}, workers=4, gpus_per_worker=1)
    assert given.overrides == ()


@pytest.mark.parametrize(
    ("nodes", "cluster", "given", "cause"),
    [
        ({}, {"gpus_per_worker": 1}, set(), "the run wants GPUs"),
        ({}, {"cpus_per_worker": 16}, set(), "1 workers with 16 CPUs each do not fit on n1"),
        (
            {"gpus": 8, "cpus": 8},
            {"cpus_per_worker": 8},
            set(),
            "8 workers with 8 CPUs and a GPU each do not fit on n1",
        ),
        ({}, {"workers": 99}, {"cluster.workers"}, "99 workers .* do not fit on all nodes together"),
    ],
)
def test_what_never_fits_is_told_and_not_waited_for(
    tmp_path: Path, nodes: dict[str, Any], cluster: dict[str, Any], given: set[str], cause: str
) -> None:
    with pytest.raises(ConfigError, match=cause):
        judged(tmp_path, nodes, given=given, **cluster)


@pytest.mark.parametrize(
    ("base", "nodes", "notice", "needed"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.2", 1, 300, 930),
        ("mistralai/Mistral-7B-Instruct-v0.2", 2, 300, 480),
        ("mistralai/Mistral-7B-Instruct-v0.2", 2, 480, 0),
        ("meta-llama/Llama-2-13b-chat-hf", 1, 1500, 1620),
        ("/models/of/nobody/knows", 1, 300, 600),
        ("tiny", 1, 300, 0),
        ("tiny", 1, 0, 60),
    ],
)
def test_a_notice_that_is_too_short_for_the_checkpoint_is_told(
    tmp_path: Path, base: str, nodes: int, notice: int, needed: int
) -> None:
    gpus = {"gpus": 8, "gpus_seen": 8, "cpus": 64}
    plan = judged(tmp_path, *[gpus] * nodes)
    run = make_run(str(tmp_path), model={"base": base}, cluster={"workers": 8 * nodes, "gpus_per_worker": 1})
    said = short_notice(run, plan.nodes, notice)
    assert bool(said) == bool(needed)
    assert not needed or f"sbatch --signal=B:USR1@{needed} and ECELLM_SIGNAL_S={needed}" in said, said
    told = subprocess.run(
        ["bash", "-c", f'{shell(plan, said)}\nprintf %s "$warning"'], capture_output=True, text=True, check=True
    )
    assert told.stdout == said


@pytest.mark.parametrize(
    ("line", "environment", "seconds"),
    [
        ("#SBATCH --signal=B:USR1@300", {}, "300"),
        ("#SBATCH --signal=B:USR1@300 # for a small model", {}, "300"),
        ("#SBATCH --signal=B:USR1", {}, "60"),
        ("", {}, "0"),
        ("#SBATCH --signal=B:USR1@300", {"SBATCH_SIGNAL": "B:USR1@930"}, "930"),
        ("#SBATCH --signal=B:USR1@300", {"SBATCH_SIGNAL": "B:USR1@930", "ECELLM_SIGNAL_S": "480"}, "480"),
    ],
)
def test_the_batch_shell_knows_its_notice(tmp_path: Path, line: str, environment: dict[str, str], seconds: str) -> None:
    script = tmp_path / "slurm_script"
    script.write_text(f"#!/bin/bash\n{line}\nsource {ROOT}/slurm/ray_up.sh\nru_notice_s\n")
    told = subprocess.run(
        ["bash", str(script)], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", **environment}
    )
    assert told.stdout == f"{seconds}\n"


def test_bash_reads_the_plan(tmp_path: Path) -> None:
    text = shell(judged(tmp_path, {"name": "n$(1)"}, {}))
    script = f'{text}\necho "$address|$total_cpus|${{derived[0]}}|${{node_cpus[n2]}}|${{#node_address[@]}}"'
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert said == f"10.0.0.1:{block_base(1234)}|16|--cluster.workers=16|8|2"


def test_a_node_looks_at_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    run = make_run(str(tmp_path))
    canary = begin(run, "7.0")
    node = look(
        out=canary.out, canary=canary.key, nonce=canary.nonce, job=7, temporary=str(tmp_path / "not/yet"),
        peers=["127.0.0.1"], interface="",
    )  # fmt: skip
    assert (node.canary, node.cpus) == ("", 3)
    assert node.temporary_free > 0
    assert len(node.code) == 16
    assert json.loads(json.dumps(dataclasses.asdict(node)))["versions"]["ray"]


def test_another_canary_is_no_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecellm.cluster.nodecheck.CANARY_S", 0.0)
    (tmp_path / "k").write_text("old")
    assert "another" in read_canary(str(tmp_path), "k", "new")
    assert "does not see" in read_canary(str(tmp_path), "none", "new")


def test_the_canary_goes_through_s3_too(s3: str) -> None:
    run: Run = make_run(s3)
    canary: Canary = begin(run, "1.0")
    assert read_canary(canary.out, canary.key, canary.nonce) == ""


def test_listeners_are_found() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", block_base(3) + 2))
        server.listen()
        assert block_base(3) + 2 in listeners()
        assert 0 in busy_blocks(3)


def test_an_interface_that_is_not_there_has_no_address() -> None:
    assert own_address("127.0.0.1", "nope0") == ""
    assert own_address("127.0.0.1", "lo") == "127.0.0.1"


@pytest.mark.parametrize(("name", "address"), [("n1", "10.0.0.1"), ("n2", "10.0.0.2")])
def test_a_node_whose_own_name_is_loopback_looks_towards_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, address: str
) -> None:
    """As with Debian's /etc/hosts: a node's own name leads to 127.0.1.1, the other's to its network."""

    class Probe(socket.socket):
        def connect(self, where: Any) -> None:
            self.towards = where[0]

        def getsockname(self) -> Any:
            return ("127.0.0.1" if self.towards == name else address, 40_000)

    monkeypatch.setattr(socket, "socket", Probe)
    monkeypatch.setattr(socket, "gethostname", lambda: f"{name}.cluster")
    monkeypatch.setattr(socket, "gethostbyname", lambda host: "127.0.1.1")
    monkeypatch.setenv("SLURMD_NODENAME", name)
    (tmp_path / "k").write_text("x")
    monkeypatch.setattr(sys, "argv", ["nodecheck", f"--out={tmp_path}", "--canary=k", "--nonce=x", "--job=7",
                                      "--temporary=/tmp", "--peers=n1,n2"])  # fmt: skip
    before = signal.getsignal(signal.SIGUSR1)
    try:
        main()
    finally:
        signal.signal(signal.SIGUSR1, before)
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["address"], said["canary"]) == (name, address, "")
