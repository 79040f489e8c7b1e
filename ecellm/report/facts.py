"""The facts of a run: what ran, on what, with which seed. Only what was recorded; the rest is left out."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

from ecellm.report.curves import Series, line_chart
from ecellm.report.load import Outcome
from ecellm.tasks.registry import TASKS

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
        ("git revision", _revision(known.get("git"))),
        ("versions", ", ".join(f"{name} {version}" for name, version in (known.get("versions") or {}).items())),
        ("machine", ", ".join(f"{name} {value}" for name, value in (known.get("machine") or {}).items())),
    ]
    return [(name, str(value)) for name, value in lines if value not in (None, "", [])]


def headline(outcome: Outcome) -> str:
    """One line under the title: base, how it was trained, how long; empty where nothing of it was recorded."""
    run = outcome.facts.get("run") or {}
    steps = outcome.metrics[-1]["step"] if outcome.metrics else None
    parts = (str((run.get("model") or {}).get("base") or ""), _training(run), f"{steps:,} steps" if steps else "",
             _time(outcome))  # fmt: skip
    return " · ".join(part for part in parts if part)


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
    return charts + _probed(outcome)


def _probed(outcome: Outcome) -> list[Any]:
    """The primary metric of each task while the model was trained, on a sample of rows."""
    charts = []
    for task in TASKS:
        found = [(float(line["step"]), line["scores"][task]) for line in outcome.probes if task in line["scores"]]
        points = [(step, float(one["value"])) for step, one in found if one.get("value") is not None]
        if points:
            last = found[-1][1]
            title = f"{task} {last['metric']}, {last['n']} rows while training"
            charts.append(line_chart(title, [Series(task, points, "s1")]))
    return charts


def commands(outcome: Outcome) -> list[str]:
    """Commands that make this report again from its run file. A path of this machine is written as OUT."""
    out = "OUT" if os.path.isabs(outcome.out) else outcome.out
    return [f"ecellm pipeline {out}/run.json", f"ecellm report {out}"]


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
    """Wall time of the training command, from starting workers to the export, and the steps' own seconds in it.

    Wall time shorter than the steps is that of a command which went on from an earlier one, so it is left out.
    """
    steps = sum(float(line.get("seconds") or 0) for line in outcome.metrics)
    train = outcome.facts.get("train")
    wall = float(train.get("wall_seconds") or 0) if isinstance(train, dict) else 0.0
    said = [f"{_duration(wall)} wall time"] if wall and wall >= steps else []
    return ", ".join([*said, *([f"{_duration(steps)} in steps"] if steps else [])])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _revision(git: object) -> str:
    """The commit, and whether files differed from it."""
    if not isinstance(git, dict):
        return str(git or "")
    return str(git.get("revision", "")) + (", with changes" if git.get("changed") else "")
