"""Lines of a raw file, plain or gzipped, with their numbers. Formats that are not text lines (Parquet) are not here.

A file that is cut off or of another encoding ends the read with a DataError; a single bad line is counted in the
tally and the read goes on.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from ecellm.errors import DataError
from ecellm.sources.tally import Tally

Object = dict[str, Any]


def missing(name: str) -> DataError:
    """The error for a raw file that is not there."""
    return DataError(
        f"{name}: no such file",
        found="nothing",
        expected="a raw file or folder",
        mend="correct sources.root or the path in sources.files, or download the file",
    )


def open_raw(path: str, name: str) -> BinaryIO:
    """The file's bytes, gunzipped where its first bytes say gzip. Raises DataError where it cannot be opened."""
    try:
        handle = open(path, "rb")  # noqa: SIM115
        zipped = handle.read(2) == b"\x1f\x8b"
        handle.seek(0)
    except FileNotFoundError:
        raise missing(name) from None
    except OSError as error:
        raise DataError(f"{name}: cannot be opened", found=str(error), expected="a readable file",
                        mend="check the path and its permissions") from error  # fmt: skip
    return cast(BinaryIO, gzip.open(handle)) if zipped else handle


def text_lines(path: str, tally: Tally) -> Iterator[tuple[int, str]]:
    """(number, line without its end) of every non-empty UTF-8 line; undecodable ones are rejected in `tally`.

    Raises DataError for a missing file, a cut-off gzip, or UTF-16.
    """
    name, number = display(path, tally), 0
    with open_raw(path, name) as handle:
        try:
            for number, raw in enumerate(handle, 1):
                if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise DataError(f"{name}, line 1: not UTF-8", found="UTF-16 text", expected="UTF-8 text",
                                    mend="convert it: iconv -f UTF-16 -t UTF-8")  # fmt: skip
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip(
                        "\r\n"
                    )
                except UnicodeDecodeError:
                    tally.reject(number, "not UTF-8", name)
                    continue
                if line.strip():
                    yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{name}, after line {number}: the gzip stream is broken or cut off",
                found=f"{os.path.getsize(path)} bytes; {error}",
                expected="a whole gzip file",
                mend="download the file again and compare its size with the origin's",
            ) from error


def display(path: str, tally: Tally) -> str:
    """The file's name for messages: the source, and the file in it where the source is a folder."""
    base = os.path.basename(path)
    return tally.source if tally.source.endswith(base) else f"{tally.source}/{base}"


def objects(
    path: str, tally: Tally, *, literal: bool = False
) -> Iterator[tuple[int, Object]]:
    """(number, object) of every line that is a JSON object; with `literal`, or a Python dict literal.

    Literals go through `ast.literal_eval`: a line of a data file is never run.
    """
    name = display(path, tally)
    for number, line in text_lines(path, tally):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = literal_value(line) if literal else None
            if value is None:
                tally.reject(
                    number,
                    "neither JSON nor a Python literal" if literal else "not JSON",
                    name,
                )
                continue
        if isinstance(value, dict):
            yield number, value
        else:
            tally.reject(number, "not an object", name)


def literal_value(line: str) -> object:
    """The Python literal in `line`, or None."""
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def table(
    path: str, tally: Tally, columns: tuple[str, ...], *, delimiter: str = ","
) -> Iterator[tuple[int, Object]]:
    """(line, row as dict) of a small delimited file with a header; UTF-8 or else latin-1.

    Raises DataError where one of `columns` is missing. Rows of another width are rejected.
    """
    name = display(path, tally)
    with open_raw(path, name) as handle:
        try:
            data = handle.read()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{name}: the gzip stream is cut off", found=str(error), expected="a whole gzip file",
                            mend="download the file again") from error  # fmt: skip
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    csv.field_size_limit(1 << 27)
    rows = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    header = next(rows, [])
    lacking = [column for column in columns if column not in header]
    if lacking:
        raise DataError(f"{name}, line 1: columns are missing", found=", ".join(header)[:200] or "an empty file",
                        expected=", ".join(columns), mend="check the format named in the run file")  # fmt: skip
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            tally.reject(rows.line_num, f"not CSV: {error}", name)
            continue
        if row is None:
            return
        if len(row) != len(header):
            tally.reject(
                rows.line_num, f"{len(row)} cells instead of {len(header)}", name
            )
        else:
            yield rows.line_num, dict(zip(header, row, strict=True))


def text_of(value: object) -> str:
    """A text field as text: None, NaN and non-text become ""; lists join with spaces."""
    if isinstance(value, str):
        return "" if value.strip().lower() in ("", "nan") else value
    if isinstance(value, list):
        return " ".join(part for part in map(text_of, value) if part)
    return ""
