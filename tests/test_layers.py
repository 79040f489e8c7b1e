"""Imports go down only, and each giant has its few doors. Every import statement is read, local ones too."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RANKS = {
    "errors": 0, "records": 0,
    "config": 1, "tasks": 1, "console": 1, "architectures": 2,
    "storage": 2,
    "stage": 3, "nodes": 3, "provenance": 3, "rows": 3, "sources": 3, "prompt": 3, "similarity": 3, "bleurt": 3,
    "placement": 4, "session": 4, "model": 4, "checkpoint": 4, "baselines": 4,
    "data": 5, "ecinstruct": 5,
    "evaluate": 6, "score": 6,
    "train": 7, "report": 7, "plan": 7, "doctor": 7, "looking": 7,
    "pipeline": 8, "cluster": 8,
    "cli": 9,
    "jobs": 10,
}  # fmt: skip
DOORS = {
    "deepspeed": ("ecellm/train/zero3.py",),
    "boto3": ("ecellm/storage/s3.py",),
    "botocore": ("ecellm/storage/s3.py",),
    "ray": (
        "ecellm/session.py", "ecellm/nodes.py", "ecellm/data/prepare.py", "ecellm/train/group.py",
        "ecellm/train/member.py", "ecellm/ecinstruct/flow/cluster.py",
        "ecellm/train/probes.py",
        "ecellm/evaluate/pool.py", "ecellm/evaluate/trained.py", "ecellm/doctor.py", "ecellm/placement.py",
        "ecellm/cluster/ready.py",
        "ecellm/cluster/watch.py", "ecellm/cluster/submit.py",
    ),
    "vllm": ("ecellm/evaluate/engines/offline.py",),
    "openai": ("ecellm/evaluate/engines/endpoint.py",),
    "llguidance": ("ecellm/model/guide.py",),
}  # fmt: skip
FILES = sorted([*ROOT.glob("ecellm/**/*.py"), *ROOT.glob("jobs/**/*.py")])


def part_of(module: str) -> str:
    """`ecellm.data.order` belongs to `data`, `jobs.train` to `jobs`."""
    names = module.split(".")
    return "jobs" if names[0] == "jobs" else names[1] if len(names) > 1 else ""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from ecellm import x` counts as `ecellm.x`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names = [alias.name for alias in node.names] if node.module == "ecellm" else [""]
            yield from ((node.lineno, f"{node.module}.{name}".rstrip(".")) for name in names)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_down(path: Path) -> None:
    own = part_of(module_of(path).removesuffix(".__init__"))
    for line, module in imports(path):
        if module.split(".")[0] in ("ecellm", "jobs"):
            other = part_of(module)
            assert own == other or RANKS[other] < RANKS[own], f"line {line}: {own} may not import {other}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_giants_have_their_doors(path: Path) -> None:
    here = path.relative_to(ROOT).as_posix()
    for line, module in imports(path):
        allowed = DOORS.get(module.split(".")[0])
        assert allowed is None or here in allowed, f"line {line} imports {module}"


def test_the_rank_table_is_the_tree() -> None:
    """A new package or module must say where it stands, and none is listed that has gone."""
    found = {part_of(module_of(path).removesuffix(".__init__")) for path in FILES} - {""}
    assert found == set(RANKS)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("part", ["package", "tests"])
def test_what_is_imported_is_declared(part: str) -> None:
    """A library that only lies in a developer's environment is missing in everyone else's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    if part == "package":
        del extras["dev"]
    lines = [*project["dependencies"], *(line for some in extras.values() for line in some)]
    declared = {re.split(r"[\[<>=~; ]", line)[0].lower().replace("_", "-") for line in lines}
    known = packages_distributions()
    for path in FILES if part == "package" else sorted(ROOT.glob("tests/**/*.py")):
        for line, module in imports(path):
            top = module.split(".")[0]
            if top in {"ecellm", "jobs", "tests"} or top in sys.stdlib_module_names:
                continue
            owners = {name.lower().replace("_", "-") for name in known.get(top, [top])}
            assert owners & declared, f"{path}:{line}: {module} is of {owners}, which pyproject.toml does not name"
