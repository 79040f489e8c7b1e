"""`ecellm submit`: a stage as a job of a Ray cluster that runs, its log followed, its exit code carried back.

The one decision: the exit code is the stage's own. Ray's command line knows only 0 and 1, and of a job that was stopped
Ray keeps no code at all, so the stage says it in its last line. Ray ends a stopped job after 3 seconds unless told
otherwise; it is told how long a checkpoint takes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ecellm.cluster.lock import runtime_pip
from ecellm.config.schema import Run
from ecellm.errors import ClusterError, ConfigError, EcellmError
from ecellm.session import know_token
from ecellm.storage.base import is_remote

MARK = "ecellm: exit code "
TELL = "ECELLM_TELL_EXIT"
LOCK = "ECELLM_LOCK"
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_POLL_S = 1.0
_AWAY_S = 120.0
"""How long the job server may not answer."""
_AGENT_S = 90.0
"""Wait for the head's own agent to come up, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is sent.

    Args:
        stage, run_file, overrides: as `python -m jobs.STAGE RUN.toml …` takes them.
        folder: working directory that travels; the run file lies in it.
        stop_s: seconds that a stopped job may take to save.
        start_s: seconds that it may wait for room on the cluster.
        environment: further variables of the job.
        install: build the environment of the lock file on the nodes.
        any_versions: take an environment that differs from the lock file.
    """

    stage: str
    run_file: str
    overrides: tuple[str, ...] = ()
    folder: str = "."
    stop_s: int = 300
    start_s: int = 900
    environment: dict[str, str] = field(default_factory=dict)
    install: bool = False
    any_versions: bool = False

    @property
    def entrypoint(self) -> str:
        """The command line on the head node."""
        return shlex.join(["python", "-m", f"jobs.{self.stage}", self.inside, *self.overrides])

    @property
    def inside(self) -> str:
        """The run file's path inside the folder. Raises ConfigError where it lies outside, and so stays behind."""
        path, folder = Path(self.run_file).resolve(), Path(self.folder).resolve()
        if not path.is_relative_to(folder):
            raise ConfigError(
                f"{self.run_file} lies outside {folder}", expected="a run file that travels with the job",
                mend="copy it into the folder, as jobs/runs/, or give --working-dir",
            )  # fmt: skip
        inside = path.relative_to(folder)
        stays = [name for name in (".gitignore", ".rayignore") if _ignored(folder / name, inside)]
        if stays:
            raise ConfigError(
                f"{self.run_file} does not travel: {stays[0]} leaves it out", expected="a run file that is not ignored",
                mend="keep it in jobs/runs/",
            )  # fmt: skip
        return inside.as_posix()

    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment. What travels is small: .gitignore and .rayignore say what stays."""
        variables = {
            "RAY_JOB_STOP_WAIT_TIME_S": str(self.stop_s), TELL: "1", "PYTHONUNBUFFERED": "1", **self.environment,
        }  # fmt: skip
        if not self.any_versions:
            variables[LOCK] = "1"
        said: dict[str, Any] = {"working_dir": str(Path(self.folder).resolve()), "env_vars": variables}
        if self.install:
            said["pip"] = runtime_pip(self.folder)
        return said


def _ignored(patterns: Path, inside: Path) -> bool:
    """Whether a line of an ignore file names the path or a folder above it."""
    if not patterns.exists():
        return False
    above = [inside, *inside.parents][:-1]
    for line in patterns.read_text(encoding="utf-8").splitlines():
        pattern = line.strip().rstrip("/")
        if pattern and pattern[0] not in "#!":
            whole = pattern.lstrip("/")
            if any(fnmatch(str(one), whole) or ("/" not in pattern and fnmatch(one.name, whole)) for one in above):
                return True
    return False


def connect(address: str) -> Any:
    """A client of the job server. Raises ClusterError where it does not answer, ConfigError without an address."""
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS", "") or os.environ.get("RAY_DASHBOARD_ADDRESS", "")
    if not address:
        raise ConfigError(
            "no address of a Ray cluster", expected="--address http://HEAD:8265, or RAY_API_SERVER_ADDRESS",
            mend="ray dashboard cluster/aws.yaml opens a tunnel to http://127.0.0.1:8265",
        )  # fmt: skip
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # they win over what is passed
        os.environ.pop(name, None)
    know_token()
    from ray.job_submission import JobSubmissionClient

    for noisy in [name for name in logging.root.manager.loggerDict if name.startswith("ray.")]:
        logging.getLogger(noisy).setLevel(logging.ERROR)  # they tell of every file that says what stays behind
    os.environ.setdefault("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", ".git,.venv,__pycache__")
    try:
        return JobSubmissionClient(address)
    except Exception as trouble:  # Ray raises whatever its HTTP library does
        text = (str(trouble).strip().splitlines() or [type(trouble).__name__])[0]
        refused = any(word in str(trouble) for word in ("401", "403", "nauthor", "uthentication"))
        raise ClusterError(
            f"the job server at {address} " + ("refuses this token" if refused else "does not answer"),
            found=text[:300], expected="a Ray head with its dashboard on",
            mend="set RAY_AUTH_TOKEN to the cluster's" if refused else "check the address, the tunnel and the firewall",
        ) from trouble  # fmt: skip


def submit(client: Any, job: Job, run: Run) -> tuple[str, bool]:
    """Send the job, or find the same one that runs already.

    Returns:
        Its id, and whether it was there.

    Raises:
        ConfigError: another job works on the same OUT: two attempts must not overlap.
        ClusterError: Ray refuses it.
    """
    out = run.out if is_remote(run.out) else str(run.out)
    entrypoint, environment = job.entrypoint, job.runtime_env()
    if not is_remote(out) and not os.path.isabs(out):
        raise ConfigError(
            f"out = {out!r} would lie in the folder that Ray makes for this version of the code",
            expected="an s3:// prefix, or an absolute path that all nodes share", mend="give it with --out",
        )  # fmt: skip
    for other in _asked(client.list_jobs):
        facts = other.metadata or {}
        if _name(other.status) in _OVER or facts.get("ecellm_out") != out:
            continue
        if other.entrypoint == entrypoint:
            return str(other.submission_id), True
        raise ConfigError(
            f"job {other.submission_id} is at work on {out}", found=other.entrypoint, expected="one job for one out",
            mend=f"wait for it, or: ray job stop {other.submission_id}",
        )  # fmt: skip
    name = f"{run.name}-{job.stage}-{uuid.uuid4().hex[:8]}"
    metadata = {"ecellm_out": out, "ecellm_stage": job.stage, "ecellm_run": run.name}
    deadline = time.monotonic() + _AGENT_S
    while True:
        try:
            client.submit_job(
                entrypoint=entrypoint, submission_id=name, runtime_env=environment, metadata=metadata
            )  # fmt: skip
            return name, False
        except Exception as trouble:  # Ray raises RuntimeError for all of it
            if "No available agent" not in str(trouble) or time.monotonic() > deadline:
                raise _not_taken(trouble) from trouble
            time.sleep(_POLL_S)  # a head that has just started has no agent yet


def _not_taken(trouble: Exception) -> ClusterError:
    text = str(trouble).strip().splitlines()
    told = [line for line in text if "exceeded" in line or "Error" in line] or text or [type(trouble).__name__]
    return ClusterError(
        "Ray does not take the job", found=told[-1].strip()[:300],
        expected="an upload under 100 MiB and a head with room",
        mend="name what is large and not needed in .rayignore",
    )  # fmt: skip


def follow(client: Any, job_id: str, job: Job, stop: threading.Event, show: Callable[[str], None]) -> int:
    """Show the job's log until it ends. `stop` asks it to save and end.

    Returns:
        The stage's own exit code.

    Raises:
        ClusterError: it never started, or was ended before it could save.
    """
    log = _Log(client, job_id, show)
    begun, asked = time.monotonic(), False
    while True:
        info = _asked(lambda: client.get_job_info(job_id), job_id)
        status = _name(info.status)
        if status in _OVER:
            break
        if stop.is_set() and not asked:
            _asked(lambda: client.stop_job(job_id), job_id)
            asked = True
        if status == "PENDING" and (asked or time.monotonic() - begun > job.start_s):
            _asked(lambda: client.stop_job(job_id), job_id)
            if asked:
                raise ClusterError(f"job {job_id} was stopped before it started", mend="submit it again")
            raise ClusterError(
                f"job {job_id} did not start for {job.start_s} s", found=str(info.message or "")[:300],
                expected="a head node with room for the driver", mend="look at `ray status` on the head",
            )  # fmt: skip
        stop.wait(_POLL_S) if not asked else time.sleep(_POLL_S)
    log.finish()
    return _code(info, status, _asked(lambda: client.get_job_logs(job_id), job_id), job_id)


def _asked(question: Callable[[], Any], job_id: str = "") -> Any:
    """An answer of the job server, which may be away for a while: the job runs on without it."""
    end = time.monotonic() + _AWAY_S
    while True:
        try:
            return question()
        except Exception as trouble:  # Ray raises whatever its HTTP library does
            if time.monotonic() > end:
                raise ClusterError(
                    f"the job server does not answer for {_AWAY_S:.0f} s", found=str(trouble).strip()[:300],
                    expected="a Ray head with its dashboard on",
                    mend=f"job {job_id} may run on: the same command joins it again" if job_id else "look at the head",
                ) from trouble  # fmt: skip
            time.sleep(_POLL_S)


def _code(info: Any, status: str, text: str, job_id: str) -> int:
    said = re.findall(rf"^{MARK}(\d+)\s*$", text, re.MULTILINE)
    if status == "SUCCEEDED":
        return 0
    if said:
        return int(said[-1])
    if status == "FAILED" and info.driver_exit_code is not None and 0 < info.driver_exit_code < 128:
        return int(info.driver_exit_code)
    raise _ended(info, status, job_id)


def _ended(info: Any, status: str, job_id: str) -> EcellmError:
    lines = [line for line in str(info.message or "").splitlines() if line.strip()]
    return ClusterError(
        f"job {job_id} ended as {status} without a word of its own", found=(lines or [""])[-1].strip()[:300],
        expected="an exit code", mend="its driver was killed or its environment could not be made: ray job logs "
        f"{job_id}; a stop that needs longer to save: --stop-wait",
    )  # fmt: skip


class _Log(threading.Thread):
    """The job's log as it grows. A connection that breaks is made anew, and nothing is shown twice."""

    def __init__(self, client: Any, job_id: str, show: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._client, self._id, self._show, self._shown = client, job_id, show, 0
        self.start()

    def run(self) -> None:
        while True:
            try:
                asyncio.run(self._tail())
                return
            except Exception:  # whatever the websocket raises: the job's state is asked for elsewhere
                time.sleep(_POLL_S)

    async def _tail(self) -> None:
        seen = 0
        async for piece in self._client.tail_job_logs(self._id):
            fresh = piece[max(0, self._shown - seen) :]
            seen += len(piece)
            if fresh:
                self._shown = seen
                self._show(re.sub(rf"(?m)^{MARK}\d+\s*\n?", "", fresh))

    def finish(self) -> None:
        """Show what is left."""
        self.join(timeout=10)
        text = _asked(lambda: self._client.get_job_logs(self._id), self._id)
        if len(text) > self._shown and self.is_alive():
            self._show(text[self._shown :])


def _name(status: Any) -> str:
    return str(getattr(status, "value", status))
