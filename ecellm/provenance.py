"""Where results come from: OUT/run.json with the resolved run file, git revision, versions, seed and data fingerprints.

No secret can be in it: the run file has no field for one, and inside addresses user names, passwords and the values of
queries (signatures, keys) are masked.
Stages add their facts one after another, so the file is read, merged and written again.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from ecellm.config.schema import Run
from ecellm.storage.base import Storage

RUN_JSON = "run.json"
PACKAGES = (
    "ecellm", "torch", "transformers", "tokenizers", "deepspeed", "ray", "peft", "flash-attn", "pyarrow", "numpy",
    "safetensors", "torchmetrics", "boto3",
)  # fmt: skip


def write_run_json(storage: Storage, run: Run, **facts: object) -> None:
    """Write or extend run.json. Facts of earlier stages stay; a fact of the same name is replaced.

    Raises:
        StorageError: it cannot be written.
    """
    said = read_run_json(storage)
    said.update(run=run.model_dump(mode="json"), seed=run.seed, git=git_revision(), versions=versions())
    said["machine"] = {"cores": os.cpu_count(), "system": platform.system(), "processor": platform.machine()}
    said.update(facts)
    text = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False, default=str)
    storage.write(RUN_JSON, (masked(text) + "\n").encode())


def read_run_json(storage: Storage) -> dict[str, Any]:
    """What is known so far; empty where there is no run yet."""
    try:
        said = json.loads(storage.read(RUN_JSON))
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def masked(text: str) -> str:
    """The text with `user:password@` and the values of queries in addresses replaced."""
    text = re.sub(r"(?<=://)[^/?#\s\"]+@", "***@", text)
    return re.sub(r"(://[^\s\"?]*\?)([^\s\"#]+)", lambda found: found[1] + re.sub(r"=[^&]+", "=***", found[2]), text)


def versions() -> dict[str, str]:
    """Installed versions of what a result can depend on; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> dict[str, object]:
    """Commit of the checkout that holds this code and whether files differ from it; empty outside a checkout."""
    here = Path(__file__).resolve().parent
    revision = _git(here, "rev-parse", "HEAD")
    return {"revision": revision, "changed": bool(_git(here, "status", "--porcelain", "-uno"))} if revision else {}


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
