"""What the doctor finds, on a machine of its own, on a login node and inside jobs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ecellm.doctor import Finding, examine, show, whereabouts

PLACES = ("SLURM_JOB_ID", "RAY_JOB_ID", "RAY_JOB_SUBMISSION_ID", "KUBERNETES_SERVICE_HOST", "RAY_ADDRESS")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No job, no cluster, an empty home."""
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def found(name: str) -> Finding:
    return next(one for one in examine() if one.name == name)


def test_it_says_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert whereabouts() == "a machine of its own"
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    assert "login node" in whereabouts()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert "pod" in whereabouts()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert "inside Slurm job 12" in whereabouts()


def test_inside_a_job_what_was_granted_is_compared_with_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_CPUS_ON_NODE": "8", "SLURM_GPUS_ON_NODE": "99"}.items():
        monkeypatch.setenv(name, value)
    assert "8 CPUs and 99 GPUs" in found("granted by Slurm").found
    missing = found("GPUs granted are seen")
    assert not missing.there
    assert missing.essential
    assert "GPUs granted are seen" in show(examine())


def test_a_cluster_that_does_not_answer_is_essential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    cluster = found("Ray cluster")
    assert not cluster.there
    assert cluster.essential
    assert "does not answer" in cluster.found


def test_a_cluster_that_answers_wants_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        assert found("Ray cluster").there
        assert not found("Ray token").there
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
        assert found("Ray token").there


def test_s3_is_tried_when_asked(s3: str) -> None:
    answer = next(one for one in examine(s3) if one.name == "S3")
    assert answer.there
    assert next(one for one in examine("s3://no-such-bucket-here/x") if one.name == "S3").essential


def test_every_missing_part_has_a_mend() -> None:
    for one in examine():
        assert one.there or one.mend, one.name
