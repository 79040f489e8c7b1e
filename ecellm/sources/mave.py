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
from ecellm.sources.lines import json_objects, missing, text_of
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


def read(location: str, source: SourceFile, tally: Tally) -> Iterator[Attributed]:
    """Records of a file, or of every mave_positives.jsonl and mave_negatives.jsonl under a folder."""
    if not os.path.isdir(location):
        yield from _read_file(location, source.split, source, tally)
        return
    files = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(location)
        for name in names
        if "ositives.jsonl" in name or "egatives.jsonl" in name
    )
    if not files:
        raise missing(f"{location}/**/mave_positives.jsonl")
    for path in files:
        split = source.split or split_of(os.path.relpath(path, location))
        yield from _read_file(path, split, source, tally)


def split_of(path: str) -> str:
    """The split that a folder or file of the path names, or ""."""
    for part in reversed(path.replace("_", "/").replace("-", "/").replace(".", "/").split("/")):
        if part.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[part.lower()]
    return ""


def _read_file(path: str, split: str, source: SourceFile, tally: Tally) -> Iterator[Attributed]:
    for number, line in json_objects(path, tally):
        try:
            records = list(_records(line, split, source))
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            tally.reject(number, f"not MAVE's form ({type(error).__name__}: {error})", path)
            continue
        if not records:
            tally.reject(number, "no texts or no attributes", path)
            continue
        tally.good()
        yield from records


def _records(line: dict[str, Any], split: str, source: SourceFile) -> Iterator[Attributed]:
    paragraphs = tuple((str(part["text"]), str(part["source"])) for part in line["paragraphs"])
    if not any(text.strip() for text, _ in paragraphs):
        return
    body = "\n".join(text for text, _ in paragraphs)
    key = str(line.get("id") or hashlib.sha256(body.encode()).hexdigest()[:16])
    for attribute in line["attributes"]:
        evidences = tuple((str(e["value"]), paragraphs[int(e["pid"])][1]) for e in attribute["evidences"])
        for value, text in ((str(e["value"]), paragraphs[int(e["pid"])][0]) for e in attribute["evidences"]):
            if value not in text:
                raise ValueError(f"{value!r} is not in its paragraph")
        yield Attributed(
            id=key, category=text_of(line.get("category")) or source.category, paragraphs=paragraphs,
            attribute=str(attribute["key"]), evidences=evidences, split=split,
        )  # fmt: skip
