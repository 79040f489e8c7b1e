"""The run file's known keys, read from the schema: for suggestions, and for the type of an override."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from ecellm.config.schema import Run


def known_keys(model: type[BaseModel] = Run, prefix: str = "") -> Iterator[str]:
    """Every dotted key, sections included, in the order of the schema."""
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = section_of(field.annotation)
        if inner is not None:
            yield from known_keys(inner, f"{prefix}{name}.")


def nearest(path: str) -> str:
    """The known key most like `path`: in its own section first, then of the same name elsewhere, else ""."""
    keys = list(known_keys())
    section, _, name = path.rpartition(".")
    siblings = [key for key in keys if key.rpartition(".")[0] == section]
    near = difflib.get_close_matches(path, siblings, n=1, cutoff=0.75)
    elsewhere = near or [key for key in keys if key.rpartition(".")[2] == name]
    return (elsewhere or difflib.get_close_matches(path, keys, n=1, cutoff=0.75) or [""])[0]


def annotation_of(path: Sequence[str]) -> Any:
    """The type at a dotted path; None where the schema has no such key. `build.task_sizes.PM` goes through a table."""
    here: Any = Run
    for name in path:
        model = section_of(here)
        if model is not None and name in model.model_fields:
            here = model.model_fields[name].annotation
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            return None
    return here


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class of an annotation: `Train`, or `Lora` of `Lora | None`; None for plain values."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)
