"""Import of the published data set (spec A): `dataset.json`, JSON array or lines, or a data set that `datasets`
streams.

A file may be here, on S3 or http(s), packed or not; 529 MB go through a buffer of a few MiB. Of a folder the files in
it are read in the same way. Only a hub name is opened by `datasets`. Rows keep their order within a split, task and
setting, since the published side file of QPR labels counts on it; `label.json` beside the file gives the test rows
their `option_labels`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TextIO

from ecellm.config.schema import Storage as StorageSettings
from ecellm.ecinstruct.objects import Record, json_records, objects_of
from ecellm.ecinstruct.samples import sample_id
from ecellm.errors import ConfigError, DataError
from ecellm.records import SETTINGS, SPLITS, Row
from ecellm.sources.lines import File, parquet_rows, whole
from ecellm.sources.opening import Unpacked, digest_of, exists, files_of, missing, open_text
from ecellm.sources.web import bare, is_web
from ecellm.storage.base import is_remote, join
from ecellm.tasks.registry import task as find_task

BATCH = 8192
LABELS = "label.json"
ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
"""Of the data files in a folder."""
WHOLE = tuple(f"dataset{ending}" for ending in ENDINGS)
"""Names of the file that has all rows, the best first."""
BESIDE = (LABELS, "card.json", "dataset_info.json", "dataset_infos.json", "state.json")
"""JSON files in such folders that hold no rows."""
MAIN = "main"
"""The revision of a hub name."""
HUB_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Published:
    """A copy of the data set: its files, here or remote, or its name on the hub."""

    location: str
    files: tuple[str, ...] = ()
    """None for a hub name."""
    labels: str = ""
    """The side file of QPR labels beside them, where there is one."""
    revision: str = ""
    """The commit that the hub name stands for, where the hub could be asked."""
    settings: StorageSettings | None = None

    @property
    def name(self) -> str:
        """What a card calls it: the hub's name, or that of the file or folder."""
        return os.path.basename(bare(self.location).rstrip("/")) if self.files else self.location

    def digests(self) -> tuple[str, str]:
        """(of the rows, of the labels): they change with the contents, or with the revision of a hub name."""
        if not self.files:
            return (f"revision:{self.revision}" if self.revision else f"{self.location}@{MAIN}"), ""
        found = [digest_of(path, self.settings) for path in self.files]
        one = found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()
        return one, digest_of(self.labels, self.settings) if self.labels else ""

    def rows(self) -> Iterator[Row]:
        """Its rows, in order. Raises DataError as `rows_of`."""
        labels = _labels(self.labels, self.settings) if self.labels else None
        return to_rows(enumerate(self._records(), 1), bare(self.location), labels)

    def _records(self) -> Iterator[Record]:
        if not self.files:
            yield from _hub_records(self.location, self.revision)
        for path in self.files:
            parquet = bare(path).endswith(".parquet")
            of = parquet_rows(File(path, self.settings)) if parquet else json_records(path, self.settings)
            yield from (record for _, record in of)


def find(location: str, root: str = "", settings: StorageSettings | None = None) -> Published:
    """The data set at a location; a path that is not here may lie below `root`. Raises DataError where nothing is."""
    location = _placed(location, root, settings)
    if is_dataset(location):
        return Published(location, revision=revision_of(location), settings=settings)
    if is_web(location):
        return Published(location, (location,), settings=settings)
    files = _data_files(location, settings)
    labels = join(os.path.dirname(files[0]) or ".", LABELS)
    return Published(location, files, labels if exists(labels, settings) else "", settings=settings)


def rows_of(location: str, settings: StorageSettings | None = None) -> Iterator[Row]:
    """Rows of a file or folder, or of a data set that `datasets` knows by its hub name.

    Raises DataError for a missing or broken file, an unknown task, split or setting, or labels that do not fit.
    """
    yield from find(location, "", settings).rows()


def is_dataset(location: str) -> bool:
    """Whether a location is for `datasets`: a hub name that is no file or folder here."""
    if is_remote(location) or is_web(location) or os.path.exists(location):
        return False
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", location)) and not location.endswith((*ENDINGS, ".gz"))


def revision_of(name: str) -> str:
    """The commit that a hub name stands for now; "" where the hub cannot be asked."""
    from huggingface_hub import dataset_info

    try:
        return dataset_info(name, revision=MAIN, timeout=HUB_TIMEOUT_S).sha or ""
    except Exception:  # whatever is wrong with the hub or the name, reading tells it
        return ""


def _placed(location: str, root: str, settings: StorageSettings | None) -> str:
    """The location as it is, or below `root` where that is there and it is not."""
    if not root or is_remote(location) or is_web(location) or os.path.isabs(location) or os.path.exists(location):
        return location
    beside = join(root, location)
    if not is_remote(beside):
        return beside if os.path.exists(beside) else location
    try:
        return beside if files_of(beside, settings) else location
    except DataError:
        return location


def _data_files(location: str, settings: StorageSettings | None) -> tuple[str, ...]:
    """The file itself; of a folder the file that has all rows, or else all data files, in the order of their names."""
    listed = files_of(location, settings)
    if listed == [location]:
        return (location,)
    found = _best(listed)
    if not found:
        raise missing(f"{location}/{WHOLE[0]}", f"{len(listed)} other files")
    return found


def _best(listed: Iterable[str]) -> tuple[str, ...]:
    """Of many files the one that has all rows, or else all data files."""
    found = [path for path in listed if path.endswith(ENDINGS) and os.path.basename(path) not in BESIDE]
    named = [path for path in found if os.path.basename(path) in WHOLE]
    best = sorted(named, key=lambda path: (path.count("/"), WHOLE.index(os.path.basename(path)), path))[:1]
    return tuple(best or found)


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
    said = record.get("task")
    try:
        task = find_task(said if isinstance(said, str) else "")
    except ConfigError:
        raise _unknown(name, number, "task", said, "a task name of ECInstruct") from None
    if record.get("split") not in SPLITS:
        raise _unknown(name, number, "split", record.get("split"), ", ".join(SPLITS))
    if record.get("setting") not in SETTINGS:
        raise _unknown(name, number, "setting", record.get("setting"), ", ".join(SETTINGS))
    for column in ("input", "output", "instruction"):
        if not isinstance(record.get(column), str):
            raise _unknown(name, number, column, record.get(column), "text")
    try:
        options, example = _optional(record.get("options")), _optional(record.get("few_shot_example"))
    except (TypeError, RecursionError):
        raise _unknown(name, number, "options", record.get("options"), "text, or null") from None
    given, output = whole(record["input"]), whole(record["output"])
    return Row(
        split=record["split"], task=task.name, setting=record["setting"], instruction=whole(record["instruction"]),
        input=given, options=options, output=output, few_shot_example=example,
        id=sample_id(task.id, given, options, output), source=f"published:{os.path.basename(name.rstrip('/'))}",
    )  # fmt: skip


def _optional(value: object) -> str | None:
    """Text, or None for null, NaN, an empty string, `None` and `nan`: of a column that a row may lack (spec A.1)."""
    if value is None or isinstance(value, float):
        return None
    text = whole(value) if isinstance(value, str) else json.dumps(value)
    return None if text.strip() in ("", "None", "nan", "NaN") else text


def _labels(path: str, settings: StorageSettings | None) -> list[str]:
    with open_text(path, settings=settings) as file:
        try:
            found = ["".join(letters) for letters in json.load(file)]
            if other := next((letters for letters in found if not set(letters) <= set("ESCI")), ""):
                raise ValueError(f"labels {other!r:.40}")
            return found
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}: no list of label lists",
                found=str(error)[:100],
                expected="a JSON list of lists of E, S, C, I",
                mend="take the authors' label.json",
            ) from None


def _hub_records(name: str, revision: str) -> Iterator[Record]:
    """Records of a hub name. JSON goes through our own stream: `datasets` holds an array of objects whole."""
    from datasets import load_dataset, load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    try:
        of = {"revision": revision or None}
        told = load_dataset_builder(name, **of).config.data_files or {}
        files = [str(path) for split in sorted(told) for path in told[split]]
        if files and all(path.endswith(ENDINGS[:4]) for path in files):
            for path in _best(files):
                with _hub_text(path) as file:
                    yield from (record for _, record in objects_of(file, path))
            return
        parts = load_dataset(name, streaming=True, **of)
        yield from (record for split in sorted(parts) for record in parts[split])
    except (DatasetNotFoundError, ConnectionError, OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be had through `datasets`", found=str(error).partition("\n")[0][:200],
                        expected="a data set on the Hugging Face hub and a way to it, or a file or folder here",
                        mend="download dataset.json and name the file in sources.published") from error  # fmt: skip


def _hub_text(path: str) -> TextIO:
    """A file as `datasets` names it (hf://…, or of a folder here), read by ranges."""
    from datasets.utils.file_utils import xopen

    raw = xopen(path, "rb")
    return io.TextIOWrapper(Unpacked(raw) if path.endswith(".gz") else raw, "utf-8-sig", newline="")


def _unknown(name: str, number: int, column: str, found: object, expected: str) -> DataError:
    return DataError(f"{name}, record {number}: unknown or missing {column}", found=reprlib.repr(found)[:100],
                     expected=expected, mend="use the published file as it is")  # fmt: skip
