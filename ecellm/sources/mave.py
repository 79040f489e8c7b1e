"""MAVE: JSON lines of product texts with attributes and their evidence spans; a file, or a folder of splits.

A folder names its splits; a single file has the one that the run file gives it, if any. The public splitter calls the
middle split `eval`, others `val`, `validation` or `dev`: all are `val` here. A record with several attributes gives one
Attributed for each. A line whose value is not in its paragraph is rejected: nobody could extract it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.config.schema import Storage as StorageSettings
from ecellm.sources.lines import Place, id_of, json_objects, text_of
from ecellm.sources.opening import files_of, is_folder, missing
from ecellm.sources.records import Attributed
from ecellm.sources.tally import Tally

SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "eval": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


def files(location: str, source: SourceFile, settings: StorageSettings | None) -> list[tuple[str, str]]:
    """(file, split): of a folder every mave_positives.jsonl and mave_negatives.jsonl, with the split of its path."""
    if not is_folder(location, settings):
        return [(location, source.split)]
    found = [path for path in files_of(location, settings)
             if "ositives.jsonl" in os.path.basename(path) or "egatives.jsonl" in os.path.basename(path)]  # fmt: skip
    if not found:
        raise missing(f"{location}/**/mave_positives.jsonl")
    return [(path, source.split or split_of(path[len(location) :])) for path in found]


def split_of(path: str) -> str:
    """The split that a folder or file of the path names, or ""."""
    for part in reversed(path.replace("_", "/").replace("-", "/").replace(".", "/").split("/")):
        if part.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[part.lower()]
    return ""


def read(place: Place, source: SourceFile, tally: Tally) -> Iterator[Attributed]:
    """Records of a file; its split is the source's."""
    for number, line in json_objects(place, tally):
        try:
            records = _records(line, source, number)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            tally.reject(number, f"not MAVE's form ({type(error).__name__}: {error})"[:200], place.location)
            continue
        if not records:
            tally.reject(number, "no texts or no attributes", place.location)
            continue
        tally.good()
        yield from records


def _records(line: dict[str, Any], source: SourceFile, number: int) -> list[Attributed]:
    paragraphs = tuple((_text(part["text"]), _text(part["source"])) for part in line["paragraphs"])
    if not any(text.strip() for text, _ in paragraphs):
        return []
    key = id_of(line.get("id"))
    if not key:
        key = hashlib.sha256("\n".join(text for text, _ in paragraphs).encode()).hexdigest()[:16]
    found = []
    for attribute in line["attributes"]:
        evidences = tuple(_evidence(paragraphs, e["value"], e["pid"]) for e in attribute["evidences"])
        name = _text(attribute["key"])
        if not name.strip():
            raise ValueError("an attribute without a name")
        found.append(Attributed(
            id=key, category=text_of(line.get("category")) or source.category, paragraphs=paragraphs,
            attribute=name, evidences=evidences, split=source.split, line=number,
        ))  # fmt: skip
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _evidence(paragraphs: tuple[tuple[str, str], ...], value: Any, pid: Any) -> tuple[str, str]:
    """(value, source) of an evidence whose value is in its paragraph."""
    if not isinstance(pid, int) or not 0 <= pid < len(paragraphs):
        raise IndexError(f"there is no paragraph {pid!r:.20}")
    text, origin = paragraphs[pid]
    if _text(value) not in text:
        raise ValueError(f"{value!r:.60} is not in its paragraph")
    return value, origin
