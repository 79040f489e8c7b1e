"""The real command line in a process of its own, as a person types it, on a run of made-up data at its smallest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 240
RUN = """
name = "faults"
out = "out"

[sources.made_up]
products = 200
users = 60
queries = 60
questions = 60

[build]
tasks = ["PM", "AP"]
max_words = 40

[build.sizes]
train = 24
val = 4
test = 4
ood = 4

[prepare]
max_length = 512

[model]
base = "tiny"

[model.tiny]
hidden = 32
layers = 1
heads = 2
vocab = 512

[train]
engine = "plain"
max_steps = 2
batch_size = 4
micro_batch_size = 2
learning_rate = 1e-3

[checkpoint]
every = 2

[evaluate]
tasks = ["PM"]
systems = ["tuned"]
settings = ["IND_Diverse_Instruction"]
"""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code and all that it said."""

    code: int
    said: str

    def tells(self, code: int, *wanted: str) -> None:
        """Check the code, that each pattern was said, and that nobody was shown a traceback."""
        assert self.code == code, self.said
        for pattern in wanted:
            assert re.search(pattern, self.said), f"{pattern!r} is not in:\n{self.said}"
        assert not re.search(r"Traceback \(most recent|^\s+File \"", self.said, re.MULTILINE), self.said


def environment(**settings: str) -> dict[str, str]:
    """The environment of a command: no AWS settings but those given, and the code of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_ADDRESS"))}
    return kept | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", **settings,
    }  # fmt: skip


def command(*words: str) -> list[str]:
    """The command line of `ecellm WORDS`."""
    return [sys.executable, "-m", "ecellm.cli", *words]


def ecellm(folder: Path, *words: str, before: str = "", **settings: str) -> Done:
    """Run `ecellm WORDS` in a folder; `before` is shell that comes first, as `ulimit`."""
    line = ["bash", "-c", f'{before} && exec "$@"', "bash", *command(*words)] if before else command(*words)
    done = subprocess.run(
        line, cwd=folder, env=environment(**settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=LIMIT_S,
    )  # fmt: skip
    return Done(done.returncode, done.stdout)


def run_file(folder: Path, text: str = RUN) -> Path:
    """`run.toml` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(text)
    return folder


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of `size` bytes mounted at `place`; skips where this user may not mount one."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"A REAL FULL DISK IS NOT TESTED HERE: it needs the right to mount ({mounted.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all room of a disk but `leave` bytes."""
    stats = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (stats.f_bavail * stats.f_frsize - leave))
    return filler
