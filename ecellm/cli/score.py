"""`ecellm score`: two JSON lists of texts to one JSON object of metrics. Needs numpy only, except for AG."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from ecellm.errors import ConfigError, DataError
from ecellm.records import SETTINGS


class Rule(StrEnum):
    """Which rule scores."""

    paper = "paper"
    strict = "strict"


class Family(StrEnum):
    """Which variant of the paper rule."""

    none = ""
    t5 = "t5"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(help="Score two JSON lists of strings.")(score)


def score(
    task: Annotated[str, typer.Option(help="Task, by id or any spelling of its name.")],
    setting: Annotated[str, typer.Option(help="Setting, as IND_Diverse_Instruction.")],
    predictions: Annotated[str, typer.Option(help="JSON file: a list of the model's replies.")],
    labels: Annotated[str, typer.Option(help="JSON file: a list of the gold answers.")],
    rule: Annotated[
        Rule, typer.Option(help="paper: the authors' evaluator; strict: unreadable is wrong.")
    ] = Rule.strict,
    option_labels: Annotated[str, typer.Option(help="JSON file, QPR only: a list of E/S/C/I for each row.")] = "",
    model_family: Annotated[Family, typer.Option(help="t5: the authors' T5 variant of the paper rule.")] = Family.none,
    encoder: Annotated[str, typer.Option(help="AG only: encoder of BERTScore.")] = "roberta-large",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object (there is no other form).")] = True,
) -> None:
    """Score predictions against labels and print one JSON object, full precision."""
    from ecellm.tasks.registry import task as find

    known = find(task)
    if setting not in SETTINGS:
        raise ConfigError(f"--setting: unknown setting {setting!r}", expected="one of " + ", ".join(SETTINGS))
    said = _read(predictions)
    gold = _read(labels)
    _texts(labels, gold)
    metrics = known.score(
        [text if isinstance(text, str) else None for text in said],
        gold,
        setting=setting,
        rule=rule.value,
        option_labels=_read(option_labels) if option_labels else None,
        model_family=model_family.value,
        similarity=_similarity(encoder) if known.id == "AG" else None,
    )
    typer.echo(json.dumps(metrics))


def _similarity(encoder: str) -> Any:
    from ecellm.similarity import Similarity

    return Similarity(encoder)


def _read(path: str) -> list[Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as trouble:
        raise DataError(f"{path}: cannot be read", found=str(trouble.strerror), mend="check the path") from trouble
    except ValueError as trouble:
        raise DataError(f"{path}: not JSON", found=str(trouble), expected="a JSON list of strings") from trouble
    if not isinstance(content, list):
        raise DataError(f"{path}: not a list", found=type(content).__name__, expected="a JSON list of strings")
    return content


def _texts(path: str, content: list[Any]) -> None:
    for number, text in enumerate(content):
        if not isinstance(text, str):
            raise DataError(f"{path}, entry {number}: not a text", found=repr(text)[:80], expected="a string")
