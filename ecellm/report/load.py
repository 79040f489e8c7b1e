"""What a run left behind, read once, with whatever is missing named together with the command that makes it.

Reads only; nothing here computes a figure. A missing part is a gap in the report, never an error and never a zero.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ecellm.errors import DataError
from ecellm.provenance import read_run_json
from ecellm.records import Prediction
from ecellm.stage import marker
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.tasks.base import Floats

Scores = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Gap:
    """A part that is not there, and the command that makes it."""

    what: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One OUT folder."""

    out: str
    name: str
    storage: Storage
    facts: dict[str, Any]
    """run.json."""
    scores: dict[str, Scores]
    """By system: `tuned`, `untuned`, `few_shot`, `tfidf`, …, `trivial/RULE`, `lexical/RULE`, `SYSTEM@DECODING`."""
    metrics: list[dict[str, Any]]
    """Lines of metrics.jsonl, the last one of each step, in order."""
    card: dict[str, Any]
    probes: list[dict[str, Any]] = field(default_factory=list)
    """Lines of probes.jsonl: scores of a sample while the model was trained."""
    gaps: list[Gap] = field(default_factory=list)
    read: dict[str, tuple[list[str], Floats] | None] = field(default_factory=dict)
    """Rows' statistics that were read already, by key."""

    @property
    def made_up(self) -> bool:
        """Whether its rows come from the made-up marketplace."""
        sources = (self.facts.get("run") or {}).get("sources") or {}
        return bool(sources.get("made_up")) or bool(self.card.get("made_up"))


def load(out: str) -> Outcome:
    """Read OUT. Raises DataError where there is nothing of a run at all, or a file of it is broken."""
    storage = open_storage(out)
    facts = read_run_json(storage)
    scores = _scores(storage)
    metrics = _metrics(storage)
    card = _json(storage, "rows/card.json") or {}
    if not (facts or scores or metrics or card):
        raise DataError(
            f"{out}: nothing of a run is there",
            found="no run.json, rows, metrics or scores",
            expected="the `out` of a run",
            mend="run `ecellm pipeline RUN.toml` first, or name another folder",
        )
    gaps = [
        Gap(what, command)
        for there, what, command in (
            (facts, "run.json: settings and versions", "ecellm pipeline RUN.toml"),
            (card, "rows/card.json: the data card", "ecellm build RUN.toml"),
            (metrics, "metrics.jsonl: the training curves", "ecellm train RUN.toml"),
            ("tuned" in scores, "scores.json: the tuned model", "ecellm evaluate RUN.toml"),
            ("untuned" in scores, "baselines/untuned: the model before training", "ecellm evaluate RUN.toml"),
            (
                any(name.startswith("trivial/") for name in scores),
                "baselines/trivial: rules without a model",
                "ecellm evaluate RUN.toml",
            ),
        )
        if not there
    ]
    name = str((facts.get("run") or {}).get("name") or out.rstrip("/").rsplit("/", 1)[-1])
    return Outcome(
        out=out, name=name, storage=storage, facts=facts, scores=scores, metrics=metrics, card=card, gaps=gaps,
        probes=_probes(storage),
    )  # fmt: skip


def home(system: str) -> str:
    """Where a system's predictions lie under OUT."""
    return "evaluation" if system == "tuned" else f"baselines/{system}"


def leading(outcome: Outcome) -> str:
    """The system that a run is about: the tuned model, else the first model that was evaluated, else nothing."""
    models = [name for name in outcome.scores if "/" not in name]
    return "tuned" if "tuned" in models else models[0] if models else ""


def items(outcome: Outcome, system: str, setting: str, task: str) -> tuple[list[str], Floats] | None:
    """Rows' ids and their statistics [n, k] by the strict rule; None where they were not kept."""
    key = f"{home(system)}/{setting}/{task}/items.json"
    if key not in outcome.read:
        found = _json(outcome.storage, key)
        try:
            outcome.read[key] = None if found is None else (
                [str(one) for one in found["ids"]],
                np.array([[np.nan if x is None else x for x in line] for line in found["items"]], dtype=np.float64),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as fault:
            raise _broken(outcome.storage, key, fault) from fault
    return outcome.read[key]


def predictions(outcome: Outcome, setting: str, task: str, system: str = "tuned") -> list[Prediction]:
    """A system's predictions of a task; empty where there are none."""
    key = f"{home(system)}/{setting}/{task}/predictions.jsonl"
    try:
        # Only a newline ends a line: a reply may hold U+2028 and the like, which splitlines() takes for line ends.
        lines = outcome.storage.read(key).decode().split("\n")
    except FileNotFoundError:
        return []
    try:
        return [Prediction(**json.loads(line)) for line in lines if line]
    except (ValueError, TypeError) as fault:
        raise _broken(outcome.storage, key, fault) from fault


def _scores(storage: Storage) -> dict[str, Scores]:
    """By system; those that the newest evaluation did not ask are left out: they may be of an older model."""
    asked = (marker(storage, "evaluation") or {}).get("systems")
    found = _all_scores(storage)
    return found if asked is None else {name: scores for name, scores in found.items() if name in asked}


def _all_scores(storage: Storage) -> dict[str, Scores]:
    found = {}
    tuned = _shaped(storage, "scores.json")
    if tuned:
        found["tuned"] = tuned
    for key, _ in storage.list("baselines/"):
        if key.endswith("/scores.json"):
            found[key.removeprefix("baselines/").removesuffix("/scores.json")] = _shaped(storage, key)
    return found


class _Rule(BaseModel):
    """Metrics under one rule."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | dict[str, Any] | None] = Field(init=False)
    ci95: list[float] | None = Field(default=None, max_length=2)


class _Entry(BaseModel):
    """One task's scores, as far as reports need them; its breakdowns are not looked at here."""

    strict: _Rule
    paper: _Rule = _Rule()
    n: int = 0
    n_failed: int = 0
    primary: str = ""
    decoding: str = ""


_SHAPE = TypeAdapter(dict[str, dict[str, _Entry]])


def _shaped(storage: Storage, key: str) -> Scores:
    """A scores.json that has the form of the contract; empty where there is none."""
    found = _json(storage, key) or {}
    try:
        _SHAPE.validate_python(found)
    except ValueError as fault:
        raise _broken(storage, key, fault) from fault
    return found


def _probes(storage: Storage) -> list[dict[str, Any]]:
    """One line for each step, in order; the newest holds."""
    try:
        lines = storage.read("probes.jsonl").decode().splitlines()
        found = {int(line["step"]): line for line in map(json.loads, lines)}
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as fault:
        raise _broken(storage, "probes.jsonl", fault) from fault
    return [found[step] for step in sorted(found)]


def _metrics(storage: Storage) -> list[dict[str, Any]]:
    """A resumed run repeats the steps since its last checkpoint: the newest line of a step holds."""
    try:
        lines = storage.read("metrics.jsonl").decode().splitlines()
    except FileNotFoundError:
        return []
    steps: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        try:
            found = json.loads(line)
            step = int(found["step"])
        except (ValueError, KeyError, TypeError) as fault:
            if number == len(lines) - 1:
                break
            raise _broken(storage, f"metrics.jsonl:{number + 1}", fault) from fault
        steps[step] = steps.get(step, {}) | {key: value for key, value in found.items() if value is not None}
    return [steps[step] for step in sorted(steps)]


def _json(storage: Storage, key: str) -> dict[str, Any] | None:
    try:
        data = storage.read(key)
    except FileNotFoundError:
        return None
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as fault:
        raise _broken(storage, key, fault) from fault


def _broken(storage: Storage, key: str, fault: Exception) -> DataError:
    return DataError(
        f"{join(storage.root, key)}: cannot be read",
        found=str(fault).partition("\n")[0],
        expected="JSON as this version writes it",
        mend="run the stage that made it again",
    )
