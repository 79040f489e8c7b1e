"""The lock file, `constraints.txt`: what an environment must hold, as a check and as a Ray runtime environment.

The one decision: a job checks the environment that it finds against the lock file that travelled with it, so that an
image of another day is refused before hours are spent in it. Building one at submission is possible, and slow.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from ecellm.errors import ClusterError, ConfigError

FILE = "constraints.txt"
WATCHED = ("ray", "torch", "deepspeed", "transformers", "tokenizers", "safetensors", "pyarrow", "boto3", "pydantic")
"""Packages whose version changes results, formats or the talk between nodes."""
NOT_IN_ENVIRONMENTS = ("ray", "pip", "setuptools", "wheel")
"""Ray runs the environment, so its version is the cluster's."""


def pins(folder: str) -> dict[str, str]:
    """Package to version. Raises ConfigError where the folder has no lock file."""
    path = Path(folder) / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as trouble:
        raise ConfigError(
            f"{path}: cannot be read", found=str(trouble), mend="submit from the top folder of ecellm"
        ) from trouble
    found = re.findall(r"(?m)^([A-Za-z0-9][\w.-]*)==([^\s;#]+)", text)
    return {name.lower().replace("_", "-"): version for name, version in found}


def check(folder: str) -> None:
    """Raises ClusterError where a watched package is missing or has another version than the lock file says."""
    wanted = pins(folder)
    wrong = []
    for name in WATCHED:
        if name not in wanted:
            continue
        try:
            there = metadata.version(name).partition("+")[0]  # 2.13.0+cu128 is a build of 2.13.0
        except metadata.PackageNotFoundError:
            there = "missing"
        if there != wanted[name]:
            wrong.append(f"{name} {there}, locked {wanted[name]}")
    if wrong:
        raise ClusterError(
            f"this environment is not the one of {FILE}: {'; '.join(wrong)}", expected="the locked versions",
            mend="build the image again from this checkout, or submit with --install or --any-versions",
        )  # fmt: skip


def runtime_pip(folder: str) -> dict[str, object]:
    """Ray's `pip` field: every locked package, none resolved anew."""
    packages = [f"{name}=={version}" for name, version in pins(folder).items() if name not in NOT_IN_ENVIRONMENTS]
    return {
        "packages": packages,
        "pip_check": False,
        "pip_install_options": ["--no-deps", "--disable-pip-version-check"],
    }
