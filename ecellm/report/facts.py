"""The facts of a run: what ran, on what, with which seed. Only what was recorded; the rest is left out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ecellm.report.curves import Series, line_chart
from ecellm.report.load import Outcome

CURVES = (
    ("loss", (("loss", "training", "s0"), ("val_loss", "validation", "s1"))),
    ("learning rate", (("lr", "learning rate", "s0"),)),
    ("gradient norm", (("grad_norm", "gradient norm", "s0"),)),
    ("tokens per second", (("tokens_per_second", "tokens per second", "s0"),)),
)
"""Charts of the training and the keys of metrics.jsonl that they draw."""
_WORLD = ("world_size", "workers")


def facts(outcome: Outcome) -> list[tuple[str, str]]:
    """(name, text) of the run."""
    known = outcome.facts
    run: dict[str, Any] = known.get("run") or {}
    model = run.get("model") or {}
    last = outcome.metrics[-1] if outcome.metrics else {}
    sources = run.get("sources") or {}
    lines: list[tuple[str, object]] = [
        ("model", model.get("base")),
        ("training", _training(run)),
        (
            "data",
            "made up: an invented marketplace" if outcome.made_up else sources.get("published") or sources.get("root"),
        ),
        ("steps", last.get("step")),
        ("workers", _first(known, last, _WORLD) or (run.get("cluster") or {}).get("workers")),
        ("went on after a stop at steps", _resumed(outcome)),
        ("training time", _time(outcome)),
        ("seed", known.get("seed")),
        ("decoding", (run.get("evaluate") or {}).get("decoding")),
        ("git revision", known.get("git")),
        ("versions", ", ".join(f"{name} {version}" for name, version in (known.get("versions") or {}).items())),
        ("machine", ", ".join(f"{name} {value}" for name, value in (known.get("machine") or {}).items())),
    ]
    return [(name, str(value)) for name, value in lines if value not in (None, "", [])]


def curves(outcome: Outcome) -> list[Any]:
    """Charts of metrics.jsonl; none where it has nothing to draw."""
    charts = []
    for title, wanted in CURVES:
        series = [
            Series(name, [(float(m["step"]), float(m[key])) for m in outcome.metrics if m.get(key) is not None], style)
            for key, name, style in wanted
        ]
        chart = line_chart(title, series)
        if chart:
            charts.append(chart)
    return charts


def commands(outcome: Outcome) -> list[str]:
    """Commands that make this report again from its run file."""
    name = outcome.name
    return [f"ecellm pipeline {name}.toml", f"ecellm report {outcome.out}"]


def _training(run: dict[str, Any]) -> str:
    train, model = run.get("train") or {}, run.get("model") or {}
    if not train:
        return ""
    lora = model.get("lora")
    how = f"LoRA of rank {lora.get('rank')}" if lora else "full fine-tuning"
    return (
        f"{how}, {train.get('engine')}, batch {train.get('batch_size')}, learning rate {train.get('learning_rate'):g}"
    )


def _first(known: dict[str, Any], last: dict[str, Any], keys: tuple[str, ...]) -> object:
    train = known.get("train") if isinstance(known.get("train"), dict) else {}
    for place in (known, train, last):
        for key in keys:
            if isinstance(place, dict) and place.get(key) is not None:
                return place[key]
    return None


def _resumed(outcome: Outcome) -> str:
    """Steps that another attempt than the one before them trained."""
    lines = [line for line in outcome.metrics if line.get("attempt") is not None]
    return ", ".join(str(after["step"]) for before, after in pairwise(lines) if after["attempt"] != before["attempt"])


def _time(outcome: Outcome) -> str:
    """Sum of the steps' own seconds: waits, saves and lost work are not in it."""
    seconds = sum(float(line.get("seconds") or 0) for line in outcome.metrics)
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{text} in steps"
