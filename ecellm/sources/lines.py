"""Raw files as numbered lines, JSON objects or table rows, from a folder, S3 or gzip. Knows nothing of products.

Line numbers are those an editor shows, so that a fault can be looked at; a table row has the number of its last line,
since a quoted cell may hold line breaks.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from ecellm.errors import DataError
from ecellm.sources.tally import Tally
from ecellm.storage.base import is_remote
from ecellm.storage.open import open_storage

CELL_LIMIT = 16 * 1024 * 1024
"""Longest cell of a table, in characters; product pages are far shorter."""


def open_text(location: str, encoding: str = "utf-8") -> TextIO:
    """Open a text file, unpacking `.gz`. Raises DataError where it is missing, StorageError where S3 fails."""
    packed = location.endswith(".gz")
    try:
        if is_remote(location):
            root, _, key = location.rpartition("/")
            memory = io.BytesIO(open_storage(root).read(key))
            raw: Any = gzip.GzipFile(fileobj=memory) if packed else memory
        else:
            # Closed with the text layer around it; a gzip reader closes only what it has opened itself.
            raw = gzip.GzipFile(location, "rb") if packed else open(location, "rb")  # noqa: SIM115
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(
            f"{location}: no such file",
            found=type(error).__name__,
            expected="a raw file that a [[sources.files]] entry names",
            mend="correct `path` or sources.root in the run file, or fetch the file",
        ) from None
    return io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="")


def numbered_lines(location: str, tally: Tally, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """(line number, text) of each line that is not blank. Raises DataError on a missing, cut or foreign file."""
    with open_text(location, encoding) as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    tally.lines += 1
                    yield number, line.rstrip("\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
            raise unreadable(location, number + 1, error) from None


def json_objects(location: str, tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line; a line that is no JSON object is counted as bad."""
    for number, line in numbered_lines(location, tally):
        try:
            value = json.loads(line)
        except ValueError as error:
            tally.reject(number, f"no JSON ({error})", location)
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            tally.reject(number, "no JSON object", location)


def literal_objects(location: str, tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line that is a JSON object or a Python dict literal; others count as bad.

    Literals go through `ast.literal_eval`: a line of a data file is never run.
    """
    for number, line in numbered_lines(location, tally):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = _literal(line)
        if isinstance(value, dict):
            yield number, value
        else:
            tally.reject(number, "neither a JSON object nor a Python dict", location)


def _literal(line: str) -> object:
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def table_rows(
    location: str,
    tally: Tally,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a table with a header. A row of another width is counted as bad.

    Raises DataError where one of `columns` is missing from the header.
    """
    csv.field_size_limit(CELL_LIMIT)
    with open_text(location, encoding) as file:
        rows = csv.reader(file, delimiter=delimiter)
        try:
            header = next(rows, [])
            if missing := [column for column in columns if column not in header]:
                raise DataError(
                    f"{location}: columns are missing",
                    found=", ".join(header) or "an empty file",
                    expected=", ".join(missing),
                    mend="check `format` of this file in the run file, or fetch the file again",
                )
            for cells in rows:
                if not cells:
                    continue
                tally.lines += 1
                if len(cells) != len(header):
                    tally.reject(
                        rows.line_num,
                        f"{len(cells)} cells under {len(header)} columns",
                        location,
                    )
                else:
                    yield rows.line_num, dict(zip(header, cells, strict=True))
        except (
            EOFError,
            gzip.BadGzipFile,
            zlib.error,
            UnicodeDecodeError,
            csv.Error,
        ) as error:
            raise unreadable(location, rows.line_num + 1, error) from None


def unreadable(location: str, line: int, error: Exception) -> DataError:
    """The fault of a file that breaks off or is in another encoding."""
    return DataError(
        f"{location}, line {line}: cannot be read on",
        found=f"{type(error).__name__}: {error}",
        expected="a whole file in the encoding of its format",
        mend="fetch the file again; compare its size and sha256 with the origin's",
    )


def missing(
    location: str,
    expected: str = "a raw file or folder that a [[sources.files]] entry names",
) -> DataError:
    """The fault of a file or folder that is not there."""
    return DataError(
        f"{location}: no such file",
        found="nothing",
        expected=expected,
        mend="correct `path` or sources.root in the run file, or fetch the file",
    )


def text_of(value: object) -> str:
    """A text field as text: None, NaN and what is no text become ""; lists are joined with spaces."""
    if isinstance(value, str):
        return "" if value.strip().lower() in ("", "nan") else value
    if isinstance(value, list):
        return " ".join(part for part in map(text_of, value) if part)
    return ""
