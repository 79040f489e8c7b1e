"""`ecellm score`: two JSON lists of texts to one JSON object of metrics. Needs numpy only (AG with encoder: torch)."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer


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
    rule: Annotated[Rule, typer.Option(help="paper: the authors' evaluator; strict: unreadable is wrong.")],
    option_labels: Annotated[str, typer.Option(help="JSON file, QPR only: a list of E/S/C/I for each row.")] = "",
    model_family: Annotated[Family, typer.Option(help="t5: the authors' T5 variant of the paper rule.")] = Family.none,
    encoder: Annotated[str, typer.Option(help="AG only: encoder of BERTScore; none: no similarity.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object (there is no other form).")] = True,
) -> None:
    """Score predictions against labels and print one JSON object, full precision."""
    from ecellm.score import score_files

    metrics = score_files(
        task, setting, predictions, labels, option_labels or None, rule.value, model_family.value, encoder
    )
    typer.echo(json.dumps(metrics))
