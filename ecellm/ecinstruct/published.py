"""Import of the published data set (spec A): `dataset.json`, JSON array or lines, or a data set that `datasets`
streams.

A file may be in a folder, on S3 or http(s), packed or not; 529 MB go through a buffer of a few MiB. A hub name or a
local folder is opened by `datasets` and streamed too. Rows keep their order within a split, task and setting, since
the published side file of QPR labels counts on it; `label.json` beside the file gives the test rows their
`option_labels`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ecellm.config.schema import Storage as StorageSettings
from ecellm.ecinstruct.samples import sample_id
from ecellm.errors import ConfigError, DataError
from ecellm.records import SETTINGS, SPLITS, Row
from ecellm.sources.lines import BROKEN
from ecellm.sources.opening import exists, open_text
from ecellm.sources.web import is_web
from ecellm.storage.base import is_remote
from ecellm.tasks.registry import task as find_task

CHUNK = 1 << 20
LONGEST = 1 << 25
"""Longest record in characters before the file counts as broken."""
BATCH = 8192
Record = dict[str, Any]


def rows_of(location: str, settings: StorageSettings | None = None) -> Iterator[Row]:
    """Rows of a file, or of a data set that `datasets` knows by its hub name or its folder.

    Raises DataError for a missing or broken file, an unknown task, split or setting, or labels that do not fit.
    """
    if is_dataset(location):
        yield from to_rows(_hub_records(location), location, None)
        return
    labels = None
    if not is_web(location):
        beside = f"{location.rpartition('/')[0] or '.'}/label.json"
        labels = _labels(beside, settings) if exists(beside, settings) else None
    yield from to_rows(json_records(location, settings), location, labels)


def is_dataset(location: str) -> bool:
    """Whether a location is for `datasets`: a hub name that is no file here, or a folder."""
    if is_remote(location) or is_web(location):
        return False
    hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", location) and not location.endswith((".json", ".jsonl", ".gz"))
    return os.path.isdir(location) or bool(hub_name and not os.path.isfile(location))


def json_records(path: str, settings: StorageSettings | None = None) -> Iterator[tuple[int, Record]]:
    """(number from 1, object) of a JSON array or of JSON lines, streamed. The bare token NaN is read as NaN."""
    decoder, buffer, number, line = json.JSONDecoder(), "", 0, 1
    with open_text(path, settings=settings) as file:
        ended = False
        while True:
            start = _skip(buffer)
            line, buffer = line + buffer.count("\n", 0, start), buffer[start:]
            try:
                value, end = decoder.raw_decode(buffer) if buffer else (None, 0)
            except json.JSONDecodeError as error:
                if ended or len(buffer) > LONGEST:
                    raise _broken(path, line + error.lineno - 1, number, str(error.msg), buffer[:60]) from None
                end = 0
            if end == 0 or (end == len(buffer) and not ended):
                if ended:
                    return
                more = _read(file, path, line, number)
                ended, buffer = not more, buffer + more
                continue
            number += 1
            if not isinstance(value, dict):
                raise _broken(path, line, number, "not an object", buffer[:60])
            yield number, value
            line, buffer = line + buffer.count("\n", 0, end), buffer[end:]


def to_rows(records: Iterable[tuple[int, Record]], name: str, labels: list[str] | None) -> Iterator[Row]:
    """Rows of published records, with ids. `labels`: ESCI letters of the QPR test rows by position."""
    place: Counter[str] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    for number, record in records:
        row = _row(record, number, name)
        again = seen[row.id, row.setting]
        seen[row.id, row.setting] += 1
        changes: dict[str, str] = {}
        if again:
            changes["id"] = hashlib.sha256(f"{row.id}#{again}".encode()).hexdigest()[:16]
        if labels is not None and row.split == "test" and row.task == "Query_Product_Rank":
            at = place[row.setting]
            place[row.setting] += 1
            if at >= len(labels) or len(labels[at]) != len(row.output.split(",")):
                raise DataError(f"{name}, record {number}: label.json does not fit", found=f"QPR test row {at}",
                                expected=f"one label list for each of {len(labels)} rows, as long as its products",
                                mend="put the label.json of this data set beside it, or take it away")  # fmt: skip
            changes["option_labels"] = labels[at]
        yield replace(row, **changes) if changes else row


def _row(record: Record, number: int, name: str) -> Row:
    try:
        task = find_task(str(record["task"]))
    except (KeyError, ConfigError):
        raise _unknown(name, number, "task", record.get("task"), "a task name of ECInstruct") from None
    if record.get("split") not in SPLITS:
        raise _unknown(name, number, "split", record.get("split"), ", ".join(SPLITS))
    if record.get("setting") not in SETTINGS:
        raise _unknown(name, number, "setting", record.get("setting"), ", ".join(SETTINGS))
    text = {key: _text(record.get(key)) for key in ("input", "output", "instruction")}
    lacking = [key for key, value in text.items() if value is None]
    if lacking:
        raise _unknown(name, number, lacking[0], record.get(lacking[0]), "text")
    options, given, output = _text(record.get("options")), str(text["input"]), str(text["output"])
    return Row(
        split=record["split"], task=task.name, setting=record["setting"], instruction=str(text["instruction"]),
        input=given, options=options, output=output, few_shot_example=_text(record.get("few_shot_example")),
        id=sample_id(task.id, given, options, output), source=f"published:{os.path.basename(name)}",
    )  # fmt: skip


def _text(value: object) -> str | None:
    """Text, or None for null, NaN, an empty string, `None` and `nan`."""
    if value is None or isinstance(value, float):
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return None if text.strip() in ("", "None", "nan", "NaN") else text


def _labels(path: str, settings: StorageSettings | None) -> list[str]:
    with open_text(path, settings=settings) as file:
        try:
            return ["".join(letters) for letters in json.load(file)]
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}: no list of label lists",
                found=str(error)[:100],
                expected="a JSON list of lists of E, S, C, I",
                mend="take the authors' label.json",
            ) from None


def _skip(buffer: str) -> int:
    """Where the next record starts: after brackets, commas and white space."""
    start = 0
    while start < len(buffer) and buffer[start] in " \t\r\n,[]":
        start += 1
    return start


def _read(file: Any, path: str, line: int, number: int) -> str:
    try:
        return str(file.read(CHUNK))
    except UnicodeDecodeError as error:
        raise _broken(path, line, number, f"not UTF-8 ({error.reason})", "") from None
    except BROKEN as error:
        raise _broken(path, line, number, f"cut off ({type(error).__name__})", "") from None


def _hub_records(name: str) -> Iterator[tuple[int, Record]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        parts = load_dataset(name, streaming=True)
        yield from enumerate((record for split in sorted(parts) for record in parts[split]), 1)
    except (DatasetNotFoundError, ConnectionError, OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be had through `datasets`", found=str(error).partition("\n")[0][:200],
                        expected="a data set on the Hugging Face hub and a way to it, or a folder with its files",
                        mend="download dataset.json and name the file in sources.published") from error  # fmt: skip


def _broken(path: str, line: int, number: int, reason: str, shown: str) -> DataError:
    return DataError(f"{path}, line {line}: broken after record {number}", found=f"{reason}; {shown!r}",
                     expected="a JSON array of objects, or one JSON object a line",
                     mend="download the file again and compare its size with the origin's")  # fmt: skip


def _unknown(name: str, number: int, column: str, found: object, expected: str) -> DataError:
    return DataError(f"{name}, record {number}: unknown or missing {column}", found=repr(found)[:100],
                     expected=expected, mend="use the published file as it is")  # fmt: skip
