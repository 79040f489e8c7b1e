"""`ecellm submit`: what travels, whose exit code it is, and a stop that saves, on a real Ray head."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ecellm.cluster.submit import Job, follow, submit
from ecellm.errors import ClusterError, ConfigError
from tests.cluster.head import Head
from tests.cluster.slurm_jobs import checkpoints, run_file, steps
from tests.data.made import make_run

TOP = Path(__file__).resolve().parents[2]


class Client:
    """A job server of a test: answers in order, one for each question about the job."""

    def __init__(self, *statuses: str, log: str = "", code: int | None = None, jobs: tuple[Any, ...] = ()) -> None:
        self.statuses, self.log, self.code, self.jobs = list(statuses), log, code, jobs
        self.sent: list[dict[str, Any]] = []
        self.stopped = 0

    def list_jobs(self) -> tuple[Any, ...]:
        return self.jobs

    def submit_job(self, **words: Any) -> str:
        self.sent.append(words)
        return str(words["submission_id"])

    def get_job_info(self, job_id: str) -> Any:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return SimpleNamespace(status=status, driver_exit_code=self.code, message="the driver's last words")

    def stop_job(self, job_id: str) -> bool:
        self.stopped += 1
        return True

    def get_job_logs(self, job_id: str) -> str:
        return self.log

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for line in self.log.splitlines(keepends=True):
            yield line


def job(**changes: Any) -> Job:
    return Job(**{"stage": "train", "run_file": str(TOP / "jobs/runs/phi2.toml"), "folder": str(TOP), **changes})


def code_of(client: Client, stop: threading.Event | None = None, **changes: Any) -> int:
    return follow(client, "id", job(**changes), stop or threading.Event(), lambda text: None)


def test_the_stages_own_code_comes_back() -> None:
    assert code_of(Client("SUCCEEDED")) == 0
    assert code_of(Client("FAILED", log="error (data)\necellm: exit code 3\n", code=3)) == 3
    assert code_of(Client("FAILED", log="no last line", code=4)) == 4
    assert code_of(Client("STOPPED", log="stopped after step 7\necellm: exit code 75\n")) == 75


def test_a_job_without_a_word_is_a_cluster_failure() -> None:
    for client in (Client("FAILED", code=137), Client("STOPPED"), Client("FAILED", code=-9)):
        with pytest.raises(ClusterError, match="without a word"):
            code_of(client)


def test_a_job_that_never_starts_is_told_and_not_waited_for() -> None:
    client = Client("PENDING")
    with pytest.raises(ClusterError, match="did not start for 0 s"):
        code_of(client, start_s=0)
    assert client.stopped == 1


def test_a_stop_is_asked_once_and_its_end_is_waited_for() -> None:
    client = Client("RUNNING", "RUNNING", "RUNNING", "STOPPED", log="ecellm: exit code 75\n")
    stop = threading.Event()
    stop.set()
    assert code_of(client, stop) == 75
    assert client.stopped == 1


def test_what_is_sent() -> None:
    client = Client("RUNNING")
    run = make_run("s3://bucket/run")
    name, there = submit(client, job(overrides=("--out", "s3://bucket/run"), stop_s=240), run)
    (sent,) = client.sent
    assert not there
    assert sent["entrypoint"] == "python -m jobs.train jobs/runs/phi2.toml --out s3://bucket/run"
    assert sent["submission_id"] == name
    assert sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "240"
    assert sent["runtime_env"]["env_vars"]["ECELLM_LOCK"] == "1"
    assert name != submit(client, job(), run)[0], "a finished run's name is never used again"


def test_a_job_server_that_is_away_for_a_while_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Client):
        fails = 3

        def get_job_info(self, job_id: str) -> Any:
            if self.fails:
                self.fails -= 1
                raise ConnectionError("connection reset")
            return super().get_job_info(job_id)

    monkeypatch.setattr("ecellm.cluster.submit._POLL_S", 0.01)
    assert code_of(Away("SUCCEEDED")) == 0
    monkeypatch.setattr("ecellm.cluster.submit._AWAY_S", 0.0)
    with pytest.raises(ClusterError, match="job id may run on"):
        code_of(Away("SUCCEEDED"))


def test_an_out_that_no_other_job_would_find_is_refused() -> None:
    client = Client("RUNNING")
    with pytest.raises(ConfigError, match="would lie in the folder that Ray makes"):
        submit(client, job(), make_run("runs/mine"))
    assert not client.sent


def test_attempts_do_not_overlap() -> None:
    run, mine = make_run("s3://bucket/run"), job()
    other = SimpleNamespace(
        status="RUNNING", metadata={"ecellm_out": "s3://bucket/run"}, entrypoint=mine.entrypoint, submission_id="there"
    )
    assert submit(Client("RUNNING", jobs=(other,)), mine, run) == ("there", True)
    other.entrypoint = "python -m jobs.evaluate x.toml"
    with pytest.raises(ConfigError, match="job there is at work on s3://bucket/run"):
        submit(Client("RUNNING", jobs=(other,)), mine, run)
    other.status = "SUCCEEDED"
    assert submit(Client("RUNNING", jobs=(other,)), mine, run)[1] is False


def test_a_run_file_that_would_stay_behind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies outside"):
        _ = job(run_file=str(tmp_path / "run.toml")).entrypoint
    with pytest.raises(ConfigError, match=r"does not travel: \.(ray|git)ignore"):
        _ = job(run_file=str(TOP / "runs/mine.toml")).entrypoint


def test_what_travels_is_small(tmp_path: Path) -> None:
    """Ray's own packaging of this checkout: under 2 MB, with the code and the lock file, without data or tests."""
    from ray._private.runtime_env.packaging import create_package

    target = tmp_path / "package.zip"
    create_package(str(TOP), target, include_gitignore=True)
    assert target.stat().st_size < 2_000_000
    import zipfile

    names = zipfile.ZipFile(target).namelist()
    assert {"constraints.txt", "jobs/train.py", "ecellm/session.py", "jobs/runs/phi2.toml"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", ".git/", "runs/", "cluster/"))]


def checkout(folder: Path) -> Path:
    """A copy of what travels, with a small run file in it."""
    for name in ("ecellm", "jobs"):
        shutil.copytree(TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("constraints.txt", ".rayignore"):
        shutil.copy(TOP / name, folder / name)
    run_file(folder, out=str(folder.parent / "out"))
    return folder


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "ecellm.cli", "submit", *words, "--working-dir", str(folder)]


@pytest.mark.heavy
@pytest.mark.timeout(240)
def test_a_real_job_is_followed_stopped_with_its_state_saved_and_goes_on(head: Head, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "code")
    out, run = tmp_path / "out", str(folder / "run.toml")
    env = os.environ | {"PYTHONPATH": str(TOP), "RAY_API_SERVER_ADDRESS": head.jobs}

    def sent(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(folder, *words), env=env, capture_output=True, text=True, check=False, timeout=200
        )

    failed = sent("train", run, "--out", str(tmp_path / "nothing"))
    assert failed.returncode == 3, failed.stderr
    assert "ecellm prepare" in failed.stderr, "its log is followed"
    words = command(folder, "pipeline", run, "--train.max_steps", "5000", "--checkpoint.every", "50")
    running = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 150
    while not checkpoints(out) and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 75, said
    saved = checkpoints(out)[-1]
    assert f"stopped after step {saved} of 5000, state saved" in said
    assert steps(out)[-1]["step"] == saved
