"""The stage `evaluate`: model and rows to predictions and scores.

The tuned model's results lie at the contract's places, those of the other systems under `baselines/SYSTEM` in the same
forms. Answers come first, for every model; scores after, since they are cheap to make again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from ecellm.baselines import lexical, trivial
from ecellm.config.schema import Run
from ecellm.console import console, note
from ecellm.console import stage as banner
from ecellm.errors import DataError
from ecellm.evaluate.ask import ask
from ecellm.evaluate.rows import Groups, groups_to_test
from ecellm.evaluate.scores import Remembered, Scores, predictions_jsonl, score_task
from ecellm.evaluate.systems import open_system
from ecellm.provenance import write_run_json
from ecellm.records import Prediction
from ecellm.rows import read_rows
from ecellm.stage import clear, fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import task

FOLDER, SCORES = "evaluation", "scores.json"
FAMILIES = {"trivial": trivial.answers, "lexical": lexical.answers}
"""Rules that need no model; each is a system `FAMILY/RULE`."""
Predictions = dict[tuple[str, str], list[Prediction]]


def home(system: str) -> str:
    """Where a system's results lie under OUT, with a slash at its end or empty."""
    return "" if system == "tuned" else f"baselines/{system}/"


def evaluate(run: Run) -> dict[str, Any]:
    """Ask every system of `evaluate.systems` and score the answers.

    Returns `{"scores": {system: scores}, "skipped": bool}`; rules without a model are systems named
    `trivial/RULE` and `lexical/RULE`. Raises
    DataError without rows, CheckpointError where the model does not fit, ClusterError where workers are lost.
    """
    banner("evaluate", f"{run.out}: {', '.join(run.evaluate.systems)}")
    storage = open_storage(run.out, run.storage)
    if marker(storage, "rows") is None:  # a build that was killed leaves some tasks' rows, which would be scored
        raise DataError(f"{join(run.out, 'rows')} is not complete", mend="run: ecellm build RUN.toml")
    groups = groups_to_test(run, storage)
    models = [open_system(name, run, storage) for name in run.evaluate.systems if name not in FAMILIES]
    made_from = _made_from(run, storage, [model.digest for model in models])
    scores = _stored(storage) if is_complete(storage, FOLDER, made_from) else {}
    if scores and {model.name for model in models} <= set(scores):
        note("complete already: nothing to do")
        _table(scores, groups)
        return {"scores": scores, "skipped": True}
    storage.delete(f"{FOLDER}/COMPLETE")  # what follows overwrites the results that it vouches for
    similarity = _similarity(run, groups)
    scores = {}
    for model in models:
        said = ask(run, storage, model, groups)
        scores[model.name] = _finish(run, storage, model.name, groups, said, similarity, model.family)
    for family in (family for family in FAMILIES if family in run.evaluate.systems):
        clear(storage, f"baselines/{family}/")  # a rule that is no more would stay in the report
    for system, predictions in _by_rule(run, storage, groups).items():
        scores[system] = _finish(run, storage, system, groups, predictions, similarity)
    publish(storage, FOLDER, made_from, systems=sorted(scores))
    write_run_json(storage, run)
    _table(scores, groups)
    return {"scores": scores, "skipped": False}


def _made_from(run: Run, storage: Storage, digests: list[str]) -> str:
    asked = run.evaluate.model_dump(mode="json", exclude={"workers", "batch_tokens"})
    rows = marker(storage, "rows") or {}
    return fingerprint(asked, run.seed, run.prepare.setting, rows.get("fingerprint", ""), digests)


def _similarity(run: Run, groups: Groups) -> Remembered | None:
    if not any(name == "AG" for _, name in groups):
        return None
    from ecellm.similarity import Similarity

    return Remembered(Similarity(run.evaluate.similarity_encoder))


def _finish(
    run: Run,
    storage: Storage,
    system: str,
    groups: Groups,
    predictions: Predictions,
    similarity: Remembered | None,
    family: str = "",
) -> Scores:
    """Write predictions and scores of one system."""
    found: Scores = {}
    for (setting, name), said in predictions.items():
        folder = home(system) or f"{FOLDER}/"
        storage.write(f"{folder}{setting}/{name}/predictions.jsonl", predictions_jsonl(said))
        found.setdefault(setting, {})[name] = score_task(
            task(name),
            groups[setting, name],
            [one.text for one in said],
            resamples=run.evaluate.bootstrap,
            seed=run.seed,
            similarity=similarity if name == "AG" else None,
            encoder=run.evaluate.similarity_encoder if name == "AG" else "",
            family=family,
        )
    storage.write(home(system) + SCORES, json.dumps(found, indent=1, sort_keys=True, allow_nan=False).encode())
    return found


def _by_rule(run: Run, storage: Storage, groups: Groups) -> dict[str, Predictions]:
    """Predictions of each rule that needs no model, by system; a rule covers the tasks it makes sense for."""
    found: dict[str, Predictions] = {}
    families = [family for family in FAMILIES if family in run.evaluate.systems]
    if not families:
        return found
    for (setting, name), rows in groups.items():
        one = task(name)
        known = read_rows(storage, split="train", setting=f"IND_{run.prepare.setting}", task=one.name)
        said = {f"{family}/{rule}": texts for family in families
                for rule, texts in FAMILIES[family](one, known, rows, run.seed).items()}  # fmt: skip
        for system, texts in said.items():
            found.setdefault(system, {})[setting, name] = [
                Prediction(
                    id=row.id, prompt_sha256="", text=text, parsed=one.parse(text), finish_reason="rule", tokens=0
                )
                for row, text in zip(rows, texts, strict=True)
            ]
    return found


def _stored(storage: Storage) -> dict[str, Scores]:
    """Scores that an earlier run of this stage wrote, by system; none where a file is broken."""
    try:
        return dict(_scores_files(storage))
    except ValueError:
        return {}


def _scores_files(storage: Storage) -> Iterator[tuple[str, Scores]]:
    if storage.exists(SCORES):
        yield "tuned", json.loads(storage.read(SCORES))
    for key, _ in storage.list("baselines/"):
        if key.endswith(f"/{SCORES}"):
            yield key.removeprefix("baselines/").removesuffix(f"/{SCORES}"), json.loads(storage.read(key))


def _table(scores: dict[str, Scores], groups: Groups) -> None:
    """The primary metric of every task and system, strict rule, as people see it at the end."""
    models = [name for name in scores if "/" not in name]
    families = [family for family in FAMILIES if any(name.startswith(f"{family}/") for name in scores)]
    for setting in dict.fromkeys(setting for setting, _ in groups):
        title = f"{setting}: primary metric, strict rule"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in ("task", "n", *models, *(f"best {family}" for family in families)):
            left = column == "task" or column.startswith("best")
            table.add_column(column, justify="left" if left else "right", no_wrap=True)
        _fill(table, [group for group in groups if group[0] == setting], scores, models, families)
        console.print(table)


def _fill(
    table: Table, groups: list[tuple[str, str]], scores: dict[str, Scores], models: list[str], families: list[str]
) -> None:
    """A line for each task."""
    for setting, name in groups:
        cells = {system: found[setting][name] for system, found in scores.items() if name in found.get(setting, {})}
        if not cells:
            continue
        any_cell = next(iter(cells.values()))
        values = {system: cell["strict"].get(cell["primary"]) for system, cell in cells.items()}
        known = {system: value for system, value in values.items() if value is not None}
        line = [f"{known[system]:.3f}" if system in known else "" for system in models]
        for family in families:
            own = [system for system in known if system.startswith(f"{family}/")]
            best = max(own, key=known.__getitem__, default="")
            line.append(f"{known[best]:.3f} {best.removeprefix(f'{family}/')}" if best else "")
        table.add_row(name, str(any_cell["n"]), *line)
