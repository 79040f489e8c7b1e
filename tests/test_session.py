"""Joining Ray: tokens are shown, signals stay the stage's, and a cluster that is not there is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ecellm.errors import ClusterError
from ecellm.session import know_token, ray_session
from tests.data.made import make_run


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster, an empty home."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_token_that_is_known_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    know_token()
    assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("x")
    know_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.delenv("RAY_AUTH_MODE")


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_sigterm_stays_the_stages_own() -> None:
    """Ray's driver would leave with code 15, and nothing would be saved."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with ray_session(make_run("unused"), cpus=1):
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_connect_timeout_s", "1")
    run = make_run("unused", cluster={"address": "127.0.0.1:1"})
    with pytest.raises(ClusterError, match=r"cannot connect to Ray at 127\.0\.0\.1:1"), ray_session(run, cpus=1):
        pass
