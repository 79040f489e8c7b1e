"""Command-line overrides: `--train.learning_rate 3e-4`, `--train.learning_rate=3e-4`, lists by comma or as JSON.

Texts become values by the schema's type at their path, so `--name 12` stays a text and `--model.lora null` clears a
section. A text that fits no reading is passed on as it is: the one check of the whole tree then names the fault.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError

from ecellm.config.keys import annotation_of
from ecellm.config.rules import Fault

COMMAND_LINE = "command line"
SHORT = {"profile": "train.profile_steps"}
"""Short names of settings, as people type them."""


def read_overrides(words: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """Values by dotted path, and the faults of words that are no overrides."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--") or word == "--":
            faults.append(Fault(word, "is no override", "--section.key value"))
            continue
        path, equals, text = word[2:].partition("=")
        path = path.replace("-", "_")
        if not equals:
            if not queue or queue[0].startswith("--"):
                faults.append(Fault(f"--{path}", "has no value", f"--{path} VALUE"))
                continue
            text = queue.pop(0)
        path = SHORT.get(path, path)
        values[path] = _value(path, text)
    return values, faults


def _value(path: str, text: str) -> Any:
    annotation = annotation_of(path.split("."))
    if annotation is None:
        return text
    adapter = TypeAdapter(annotation)
    for reading in _readings(text):
        try:
            return adapter.dump_python(adapter.validate_python(reading), mode="json", exclude_unset=True)
        except ValidationError:
            continue
    if text.lstrip()[:1] in ("[", "{"):
        return _readings(text)[-1]
    return _readings(text)[1] if get_origin(annotation) is tuple else text


def _readings(text: str) -> list[Any]:
    readings: list[Any] = [text, [part.strip() for part in text.split(",") if part.strip()]]
    with suppress(ValueError):
        readings.append(json.loads(text))
    return readings


def apply(tree: dict[str, Any], values: dict[str, Any]) -> list[Fault]:
    """Set the values in the tree of the run file, making sections where there are none."""
    faults: list[Fault] = []
    for path, value in values.items():
        *sections, name = path.split(".")
        here: Any = tree
        for section in sections:
            if here.get(section) is None:
                here[section] = {}
            here = here[section]
            if not isinstance(here, dict):
                faults.append(
                    Fault(path, f"{section} is no section", f"--{path.split('.')[0]} with the whole value as JSON")
                )
                break
        else:
            here[name] = value
    return faults
