"""What must stand nowhere in the product: pickles that are read, code that is run from data, trust that nobody gave."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("ecellm/**/*.py"), *ROOT.glob("jobs/**/*.py")])
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
READS = {"numpy.load", "np.load"}
"""Read plain arrays, unless told otherwise."""
FORBIDDEN = {"pandas.read_pickle", "pd.read_pickle", "eval", "exec"}
"""Whatever they are told."""


def name_of(node: ast.expr) -> str:
    """`torch.load` of a call's function."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno} imports {name}" for name in names if name.split(".")[0] in PICKLES)
        if isinstance(node, ast.Call):
            name, words = name_of(node.func), {word.arg: word.value for word in node.keywords}
            unsafe = name in READS and "allow_pickle" in words
            if name == "torch.load":  # read as tensors only, it builds no other object
                only = words.get("weights_only")
                unsafe = not (isinstance(only, ast.Constant) and only.value is True)
            if unsafe or name in FORBIDDEN:
                yield f"line {node.lineno} calls {name}"
            trusted = words.get("trust_remote_code")
            if isinstance(trusted, ast.Constant) and trusted.value is True:
                yield f"line {node.lineno} trusts remote code that no run file named"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run_from_data(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_check_sees_what_it_should() -> None:
    bad = (
        "import pickle\nimport torch\ntorch.load('x', weights_only=n)\nload(a, trust_remote_code=True)\n"
        "np.load(f, allow_pickle=True)\nimport pandas as pd\npd.read_pickle(f)\n"
    )
    assert len(list(faults(ast.parse(bad + "eval('1')")))) == 6
    assert not list(faults(ast.parse("np.load(f, mmap_mode='r')\ntorch.load(f, weights_only=True)")))
