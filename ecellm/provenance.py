"""run.json: what a run was, beside what it made. It can hold no secret, since the run file has no place for one."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata

from ecellm.config.schema import Run
from ecellm.storage.base import Storage

_PACKAGES = ("ecellm", "torch", "ray", "deepspeed", "transformers", "peft", "datasets", "pyarrow", "numpy")
KEY = "run.json"


def read_run_json(storage: Storage) -> dict[str, object]:
    """What is known so far; empty where there is no run yet."""
    try:
        return dict(json.loads(storage.read(KEY)))
    except (FileNotFoundError, ValueError):
        return {}


def write_run_json(storage: Storage, run: Run, **facts: object) -> None:
    """Merge the resolved run, versions, git revision and `facts` into OUT/run.json."""
    known = read_run_json(storage)
    known |= {
        "run": run.model_dump(mode="json"),
        "seed": run.seed,
        "git": git_revision(),
        "versions": versions(),
        "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.system()},
        **facts,
    }
    storage.write(KEY, json.dumps(known, indent=1, sort_keys=True, default=str).encode())


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str:
    """The checkout's commit, with `+changes` where files differ from it; empty outside a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return commit + ("+changes" if commit and git("status", "--porcelain", "-uno") else "")
