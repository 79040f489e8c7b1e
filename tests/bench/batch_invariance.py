"""Whether a score depends on the batch or on the number of actors: SmolLM2-135M in fp32, real rows of all ten tasks.

The stage `evaluate` runs whole, greedy and `choice`, in an OUT of its own each time: one row at a time with one actor,
up to 32 rows together with one actor, the same with three actors. `ECELLM_BENCH_INVARIANCE_ROWS` rows of each task, 8
unless told. Compared are every figure of `scores.json` under both rules and every text. The claim: no score differs.
Probabilities of `choice` may differ in their last digits, so calibration is compared to 1e-3.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ecellm.evaluate.run import evaluate
from tests.bench._common import figure, say
from tests.bench._stage import changed, fresh_out

WAYS = {"batch 1, one actor": (1, 1), "batch 32, one actor": (32, 1), "batch 32, three actors": (32, 3)}


def run() -> dict[str, Any]:
    limit = int(os.environ.get("ECELLM_BENCH_INVARIANCE_ROWS", "8"))
    scores: dict[str, dict[str, Any]] = {}
    texts: dict[str, dict[str, list[str]]] = {}
    with tempfile.TemporaryDirectory(prefix="ecellm-bench-") as folder:
        for name, (rows, workers) in WAYS.items():
            say(name)
            out = Path(folder) / name.replace(" ", "-").replace(",", "")
            settings = {"limit": limit, "systems": ["untuned"], "also": ["choice"], "batch_rows": rows}
            run = changed(fresh_out(out), evaluate={**settings, "workers": workers}, cluster={"workers": workers})
            scores[name] = evaluate(run)["scores"]
            texts[name] = _texts(out)
    first, *others = WAYS
    apart = {name: _differences(scores[first], scores[name]) for name in others}
    other_texts = {
        name: sum(a != b for key in texts[first] for a, b in zip(texts[first][key], texts[name][key], strict=True))
        for name in others
    }
    asked = sum(map(len, texts[first].values()))
    return figure(
        sum(map(len, apart.values())), "scores that differ", versus=sum(map(_figures, scores[first].values())),
        goal="0", holds=not any(apart.values()), differences={name: found[:5] for name, found in apart.items()},
        texts_that_differ={name: f"{n} of {asked}" for name, n in other_texts.items()},
        samples=[len(found) for found in apart.values()],
        how=f"{asked} answers a way; {first} against {', '.join(others)}",
    )  # fmt: skip


def _texts(out: Path) -> dict[str, list[str]]:
    """What each system said, by its file."""
    return {
        str(path.relative_to(out)): [json.loads(line)["text"] for line in path.read_text().split("\n")[:-1]]
        for path in sorted(out.glob("**/predictions.jsonl"))
    }


def _figures(scores: Any) -> int:
    return sum(_figures(inner) for inner in scores.values()) if isinstance(scores, dict) else 1


def _differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Places where two scores differ."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        return [place for key in one for place in _differences(one[key], other[key], f"{where}/{key}")]
    if "/calibration/" in where and isinstance(one, float | int) and isinstance(other, float | int):
        return [] if abs(one - other) < 1e-3 else [where]
    if where.endswith("/bins"):
        return []  # a row may lie on a bin's edge; the errors above are sums over them
    return [] if one == other else [where]
