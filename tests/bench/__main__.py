"""Runs benchmarks and prints one JSON object on standard output: `{NAME: {"figure": x, "goal": g, "holds": bool, …}}`.

    python -m tests.bench                 # all, some take long
    python -m tests.bench gradients packing
    python -m tests.bench --list

A benchmark is a module of this package with `run() -> dict`; its docstring says what is compared and how. Both sides
of a comparison are measured in the same run, as ratios. Progress goes to standard error. Exit code 1 where a claim does
not hold or a benchmark failed, 2 for an unknown name.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import time
import traceback
from typing import Any

import tests.bench


def names() -> list[str]:
    """Benchmarks by name; modules that begin with an underscore are their common parts."""
    return sorted(module.name for module in pkgutil.iter_modules(tests.bench.__path__) if module.name[0] != "_")


def measure(name: str) -> dict[str, Any]:
    """What one benchmark found; an `error` where it failed."""
    print(f"▸ {name}", file=sys.stderr, flush=True)
    begun = time.monotonic()
    try:
        found: dict[str, Any] = importlib.import_module(f"tests.bench.{name}").run()
    except Exception:
        found = {"holds": False, "error": traceback.format_exc()}
    return {**found, "seconds": round(time.monotonic() - begun, 1)}


def main(wanted: list[str]) -> int:
    known = names()
    if wanted == ["--list"]:
        for name in known:
            about = (importlib.import_module(f"tests.bench.{name}").__doc__ or "").strip().splitlines()
            print(f"{name:<20} {about[0] if about else ''}")
        return 0
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    found = {name: measure(name) for name in wanted or known}
    print(json.dumps(found, indent=1), file=answers, flush=True)
    return 0 if all(one.get("holds", False) for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
