"""The stage `evaluate`: models and rows to predictions and scores.

The tuned model's results lie at the contract's places, those of the other systems under `baselines/SYSTEM` in the same
forms. Answers come first, for every model; scores after, since they are cheap to make again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ecellm.baselines import lexical, trivial
from ecellm.config.schema import Run
from ecellm.console import note
from ecellm.console import stage as banner
from ecellm.errors import DataError
from ecellm.evaluate.ask import Predictions, ask
from ecellm.evaluate.examples import Examples
from ecellm.evaluate.rows import Groups, groups_to_test
from ecellm.evaluate.scores import Judges, Remembered, Scores, as_read, items_json, predictions_jsonl, score_task
from ecellm.evaluate.stopping import stop_requests
from ecellm.evaluate.summary import show
from ecellm.evaluate.systems import System, open_systems
from ecellm.evaluate.trained import TRAINED, train_all
from ecellm.provenance import write_run_json
from ecellm.records import Prediction, Row
from ecellm.rows import read_rows
from ecellm.stage import clear, fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import task

FOLDER, SCORES, BASELINES = "evaluation", "scores.json", "baselines"
RULES = {"trivial": trivial.answers, "lexical": lexical.answers}
"""Families of rules that need no model; each rule is a system `FAMILY/RULE`."""


def home(system: str) -> str:
    """Where a system's results lie under OUT, with a slash at its end or empty."""
    return "" if system == "tuned" else f"{BASELINES}/{system}/"


def evaluate(run: Run) -> dict[str, Any]:
    """Ask every system of `evaluate.systems` and `evaluate.models` and score the answers.

    Returns `{"scores": {system: scores}, "skipped": bool}`; rules without a model are systems named `trivial/RULE` and
    `lexical/RULE`, further decodings `SYSTEM@DECODING`. Raises DataError without rows, CheckpointError where a model
    does not fit, ConfigError where an endpoint or an encoder cannot be had, ClusterError where workers are lost,
    Stopped after a signal: answers are kept.
    """
    named = [*run.evaluate.systems, *(model.name for model in run.evaluate.models)]
    banner("evaluate", f"{run.out}: {', '.join(named)}")
    storage = open_storage(run.out, run.storage)
    if marker(storage, "rows") is None:  # a build that was killed leaves some tasks' rows, which would be scored
        raise DataError(f"{join(run.out, 'rows')} is not complete", mend="run: ecellm build RUN.toml")
    groups = groups_to_test(run, storage)
    systems = open_systems(run, storage, Examples(_training_rows(run, storage), run.seed))
    made_from = _made_from(run, storage, systems)
    scores = _stored(storage) if is_complete(storage, FOLDER, made_from) else {}
    if scores and {system.name for system in systems} <= set(scores):
        note("complete already: nothing to do")
        show(scores, groups, made_up=bool(run.sources.made_up))
        return {"scores": scores, "skipped": True}
    storage.delete(f"{FOLDER}/COMPLETE")  # what follows overwrites the results that it vouches for
    judges = judges_of(run, groups)
    with stop_requests() as stopping:
        said, facts = ask(run, systems, groups, stopping)
        replies = train_all(run, storage, groups, stopping)
    scores = {}
    for system in systems:
        scores[system.name] = _finish(storage, system.name, groups, said[system.name], judges, system.family)
    for family in (*RULES, *TRAINED):
        clear(storage, f"{BASELINES}/{family}/")  # a rule that is no more would stay in the report
    for name, predictions in _without_models(run, storage, groups, replies).items():
        scores[name] = _finish(storage, name, groups, predictions, judges)
    publish(storage, FOLDER, made_from, systems=sorted(scores), voices=facts)
    write_run_json(storage, run, evaluation=facts)
    show(scores, groups, made_up=bool(run.sources.made_up))
    return {"scores": scores, "skipped": False}


def _training_rows(run: Run, storage: Storage) -> Callable[[str], list[Row]]:
    return lambda name: read_rows(storage, split="train", setting=f"IND_{run.prepare.setting}", task=name)


def _made_from(run: Run, storage: Storage, systems: list[System]) -> str:
    asked = run.evaluate.model_dump(mode="json", exclude={"workers", "batch_tokens", "batch_rows", "answers"})
    rows = marker(storage, "rows") or {}
    digests = [(system.name, system.voice.digest, system.policy) for system in systems]
    return fingerprint(asked, run.seed, run.prepare.setting, rows.get("fingerprint", ""), digests)


def judges_of(run: Run, groups: Groups) -> Judges:
    """What scores these rows' replies; AG's own models are loaded where it is among them. Raises ConfigError."""
    judges = Judges(resamples=run.evaluate.bootstrap, seed=run.seed, encoder=run.evaluate.similarity_encoder)
    if not any(name == "AG" for _, name in groups):
        return judges
    from dataclasses import replace

    from ecellm.similarity import Similarity

    judges = replace(judges, similarity=Remembered(Similarity(run.evaluate.similarity_encoder)))
    if run.evaluate.bleurt:
        from ecellm.bleurt import Bleurt

        judges = replace(judges, bleurt=Remembered(Bleurt(run.evaluate.bleurt)))
    return judges


def _finish(
    storage: Storage, system: str, groups: Groups, predictions: Predictions, judges: Judges, family: str = ""
) -> Scores:
    """Write predictions, statistics of rows and scores of one system."""
    found: Scores = {}
    for (setting, name), said in predictions.items():
        folder = f"{home(system) or f'{FOLDER}/'}{setting}/{name}"
        entry, items = score_task(task(name), groups[setting, name], said, judges, family)
        said = as_read(task(name), groups[setting, name], said, family)
        storage.write(f"{folder}/predictions.jsonl", predictions_jsonl(said))
        storage.write(f"{folder}/items.json", items_json(said, items))
        found.setdefault(setting, {})[name] = entry
    storage.write(home(system) + SCORES, json.dumps(found, indent=1, sort_keys=True, allow_nan=False).encode())
    return found


def _without_models(
    run: Run, storage: Storage, groups: Groups, replies: dict[str, dict[tuple[str, str], list[str]]]
) -> dict[str, Predictions]:
    """Predictions of rules and of trained baselines, by system; each covers the tasks that it makes sense for."""
    found: dict[str, dict[tuple[str, str], list[str]]] = dict(replies)
    families = [family for family in RULES if family in run.evaluate.systems]
    known_rows = _training_rows(run, storage)
    for (setting, name), rows in groups.items() if families else ():
        known = known_rows(task(name).name)
        for family in families:
            for rule, texts in RULES[family](task(name), known, rows, run.seed).items():
                found.setdefault(f"{family}/{rule}", {})[setting, name] = texts
    return {
        system: {
            (setting, name): _said(groups[setting, name], texts, name, "rule" if "/" in system else "trained")
            for (setting, name), texts in by_group.items()
        }
        for system, by_group in found.items()
    }


def _said(rows: list[Row], texts: list[str], name: str, reason: str) -> list[Prediction]:
    return [
        Prediction(
            id=row.id, prompt_sha256="", text=text, parsed=task(name).parse(text), finish_reason=reason, tokens=0
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def _stored(storage: Storage) -> dict[str, Scores]:
    """Scores that an earlier run of this stage wrote, by system; none where a file is broken."""
    try:
        return dict(_scores_files(storage))
    except ValueError:
        return {}


def _scores_files(storage: Storage) -> Iterator[tuple[str, Scores]]:
    if storage.exists(SCORES):
        yield "tuned", json.loads(storage.read(SCORES))
    for key, _ in storage.list(f"{BASELINES}/"):
        if key.endswith(f"/{SCORES}"):
            yield key.removeprefix(f"{BASELINES}/").removesuffix(f"/{SCORES}"), json.loads(storage.read(key))
