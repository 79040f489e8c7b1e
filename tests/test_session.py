"""Joining Ray: tokens are shown, and signals stay the stage's own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

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
def test_workers_outlive_a_pause_between_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_idle_worker_killing_time_threshold_ms", raising=False)
    import ray

    def who() -> int:
        time.sleep(1)
        return os.getpid()

    with ray_session(make_run("unused"), cpus=1):
        ask = ray.remote(num_cpus=0)(who)
        workers = set(ray.get([ask.remote() for _ in range(3)]))
        assert len(workers) > 1
        time.sleep(4)
        assert [pid for pid in workers if not psutil.pid_exists(pid)] == []
