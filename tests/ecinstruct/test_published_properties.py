"""Whatever is in a published file, the import gives every record as a row that can be written, or a DataError."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecellm.ecinstruct import objects, published
from ecellm.errors import DataError
from ecellm.records import SETTINGS, SPLITS
from ecellm.rows import read_rows, write_rows
from ecellm.sources.lines import whole
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import ALIASES

FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = st.text(max_size=20) | st.sampled_from(
    ["", " ", "None", "nan", "NaN", "a\ud83d", "\udc00\ud800", '{"product 1": NaN}', "A,B", "x" * 3000, "\0"]
)
LACKING = st.sampled_from([None, "", " ", "None", "nan", "NaN", math.nan])
GOOD = st.fixed_dictionaries(
    {
        "task": st.sampled_from(sorted(ALIASES)),
        "split": st.sampled_from(SPLITS),
        "setting": st.sampled_from(SETTINGS),
        **dict.fromkeys(("instruction", "input", "output"), TEXT),
    },
    optional={"options": LACKING | TEXT, "few_shot_example": LACKING | TEXT, "more": st.integers()},
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
COLUMNS = ("task", "split", "setting", "instruction", "input", "output", "options", "few_shot_example")


def _text(records: list[Any], form: str) -> str:
    if form == "lines":
        return "\n".join(json.dumps(record) for record in records)
    return json.dumps(records, indent=2 if form == "indented" else None)


@pytest.mark.parametrize("form", ["array", "indented", "lines"])
def test_every_good_record_is_a_row_that_can_be_written(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, storage = tmp_path / "dataset.json", open_storage(str(tmp_path / "out"))
    monkeypatch.setattr(objects, "CHUNK", 50)

    @FEW
    @given(st.lists(GOOD, max_size=5))
    def check(records: list[dict[str, Any]]) -> None:
        path.write_text(_text(records, form))
        rows = list(published.rows_of(str(path)))
        assert len({(row.id, row.setting) for row in rows}) == len(rows) == len(records)
        for row, record in zip(rows, records, strict=True):
            for column in ("instruction", "input", "output"):
                assert getattr(row, column) == whole(record[column])
            given = record.get("options")
            lacking = given is None or isinstance(given, float) or given.strip() in ("", "None", "nan", "NaN")
            assert (row.options is None) == lacking
        for split in SPLITS:
            write_rows(storage, "rows", [row for row in rows if row.split == split])
            if any(row.split == split for row in rows):
                assert read_rows(storage, split=split) == [row for row in rows if row.split == split]

    check()


def test_odd_records_are_rows_or_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    odd = st.dictionaries(st.sampled_from(COLUMNS) | TEXT, VALUES, max_size=8)
    mixed = st.builds(lambda good, name, value: {**good, name: value}, GOOD, st.sampled_from(COLUMNS), VALUES)

    @FEW
    @given(st.lists(GOOD | odd | mixed | VALUES, max_size=4), st.sampled_from(["array", "indented", "lines"]))
    def check(records: list[Any], form: str) -> None:
        path.write_text(_text(records, form))
        try:
            rows = list(published.rows_of(str(path)))
        except DataError as error:
            str(error).encode()
            return
        assert len(rows) <= len(records)
        for row in rows:
            for column in (row.instruction, row.input, row.output, row.options or "", row.few_shot_example or ""):
                column.encode()

    check()


def test_bytes_of_any_kind(tmp_path: Path) -> None:
    whole = json.dumps([dict.fromkeys(COLUMNS, "a")]).encode()

    @FEW
    @given(st.binary(max_size=80) | st.integers(0, len(whole)).map(lambda end: whole[:end]))
    def check(data: bytes) -> None:
        for name in ("dataset.json", "dataset.jsonl.gz", "dataset.parquet"):
            (tmp_path / name).write_bytes(data)
            try:
                list(published.rows_of(str(tmp_path / name)))
            except DataError as error:
                str(error).encode()

    check()
