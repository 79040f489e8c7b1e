"""The doors: every job and run file passes a dry run without the giants, and the README's map is true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecellm.config.load import load_run

ROOT = Path(__file__).resolve().parent.parent
RUN_FILES = sorted(ROOT.glob("jobs/runs/*.toml"))
JOBS = sorted(path.stem for path in ROOT.glob("jobs/*.py") if path.stem != "__init__")
GIANTS = ("torch", "ray", "transformers", "deepspeed", "boto3", "datasets", "pyarrow", "pandas")
WATCHED = f"""
import runpy, sys
sys.argv = ["jobs." + sys.argv[1], sys.argv[2], "--dry-run", "--seed", "41"]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
except SystemExit as left:
    assert not left.code, left.code
loaded = [name for name in {GIANTS!r} if name in sys.modules]
assert not loaded, loaded
"""


def test_all_doors_are_here() -> None:
    assert set(JOBS) == {"build", "prepare", "train", "evaluate", "report", "pipeline"}
    for job in JOBS:
        assert len((ROOT / "jobs" / f"{job}.py").read_text().splitlines()) <= 20


@pytest.mark.parametrize("job", JOBS)
def test_a_dry_run_loads_no_giant_and_prints_the_run(job: str) -> None:
    words = [sys.executable, "-c", WATCHED, job, "jobs/runs/quickstart.toml"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["name"], said["seed"]) == ("quickstart", 41)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_every_shipped_run_file_is_sound(path: Path) -> None:
    assert load_run(str(path), []).name == path.stem


def test_the_papers_models_are_here_both_ways() -> None:
    bases = ("llama2_13b", "llama2_7b", "mistral_7b", "phi2", "flan_t5_xxl", "flan_t5_xl")
    for base in bases:
        full = load_run(str(ROOT / f"jobs/runs/{base}.toml"), [])
        lora = load_run(str(ROOT / f"jobs/runs/{base}_lora.toml"), [])
        assert full.model.lora is None
        assert lora.model.lora is not None
        assert (lora.model.lora.rank, lora.model.lora.alpha, lora.model.lora.dropout) == (16, 16, 0.1)
        assert (lora.train.batch_size, lora.train.learning_rate, lora.prepare.max_length) == (128, 1e-4, 2048)
        assert full.prepare.template == lora.prepare.template == ("mistral" if base == "mistral_7b" else "alpaca")


def test_the_readme_map_is_true() -> None:
    """Every entry of the map exists, and every package and top-level module of the code has an entry."""
    block = re.search(r"```\n(pyproject\.toml.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block, "README.md has no map"
    stack: list[str] = []
    named: set[str] = set()
    for line in block.group(1).splitlines():
        match = re.match(r"^( *)(\S+)", line)
        assert match, f"not an entry: {line!r}"
        depth = len(match.group(1)) // 2
        stack[depth:] = [match.group(2).rstrip("/")]
        named.add("/".join(stack))
        assert re.search(r"\S {2,}\S", line.strip()), f"no comment: {line!r}"
    missing = sorted(path for path in named if not (ROOT / path).exists())
    assert not missing, f"in the map, not in the tree: {missing}"
    there = {f"ecellm/{path.name}" for path in (ROOT / "ecellm").iterdir() if _counts(path)}
    there |= {path.name for path in ROOT.iterdir() if path.is_dir() and _counts(path)}
    assert not there - named, f"in the tree, not in the map: {sorted(there - named)}"


def _counts(path: Path) -> bool:
    if path.name.startswith((".", "__")) or path.name.endswith(".egg-info"):
        return False
    if path.is_dir():
        return any(file.is_file() and "__pycache__" not in file.parts for file in path.rglob("*")) and not _ignored(
            path
        )
    return path.suffix == ".py"


def _ignored(path: Path) -> bool:
    return path.parent == ROOT and path.name in ("runs", "build", "dist", os.environ.get("VENV", ".venv"))
