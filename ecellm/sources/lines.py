"""Raw files as numbered lines, JSON objects or table rows, whole or in pieces. Knows nothing of products.

A piece (`Chunk` of lines, `RowGroups` of Parquet) can be read on any machine, so one big file keeps all cores busy.
Line numbers are those an editor shows, so that a fault can be looked at; a table row has the number of its last line,
since a quoted cell may hold line breaks.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ecellm.config.schema import Storage as StorageSettings
from ecellm.errors import DataError
from ecellm.sources.opening import open_binary, open_text, open_unpacked
from ecellm.sources.tally import Tally
from ecellm.sources.web import bare

CELL_LIMIT = 16 * 1024 * 1024
"""Longest cell of a table, in characters; product pages are far shorter."""
LONGEST_LINE = 64 << 20
"""Longest line in bytes; a longer one is counted as bad and passed over."""
CHUNK = 8 << 20
"""Bytes of one piece of lines."""
BROKEN = (EOFError, OSError, zlib.error)
"""What reading on may raise: a packed file that ends early or is none, a disk that fails."""
ESCAPED = re.compile("[\udc80-\udcff]")
"""What stands for a byte that is no UTF-8, after reading with `surrogateescape`."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to be read whole, in one go."""

    location: str
    settings: StorageSettings | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of a file; `first` is the number of the first one, from 1."""

    location: str
    first: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Row groups `start` to `stop` of a Parquet file; `first` is the number of their first row, from 1."""

    location: str
    first: int
    start: int
    stop: int
    settings: StorageSettings | None = None


Place = File | Chunk | RowGroups


def chunks_of(location: str, settings: StorageSettings | None = None, size: int = CHUNK) -> Iterator[Chunk]:
    """A file of lines in pieces of about `size` bytes, unpacked. Raises DataError where it is missing or breaks off."""
    first, rest = 1, b""
    with open_unpacked(location, settings) as file:
        while True:
            try:
                block = file.read(size)
            except BROKEN as error:
                raise unreadable(location, first + rest.count(b"\n"), error) from None
            data = rest + block
            cut = data.rfind(b"\n") + 1 if block else len(data)
            if cut == 0 and len(data) > LONGEST_LINE:
                data, cut = b"\0" + data[:9], 0  # what is kept of a line without end parses as nothing
            if cut:
                yield Chunk(location, first, data[:cut])
                first += data.count(b"\n", 0, cut)
            rest = data[cut:]
            if not block:
                return


def numbered_lines(place: Place, tally: Tally) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes without the line end) of each line that is not blank."""
    chunks = [place] if isinstance(place, Chunk) else chunks_of(place.location, place.settings)
    for chunk in chunks:
        for number, line in enumerate(chunk.data.split(b"\n"), chunk.first):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line and not line.isspace():
                tally.lines += 1
                yield number, line.removesuffix(b"\r")


def json_objects(place: Place, tally: Tally, *, literals: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line, or (row number, columns) of Parquet; what is no object counts as bad.

    With `literals` a line may be a Python dict literal. It goes through `ast.literal_eval`: a line of a data file is
    never run.
    """
    if not isinstance(place, Chunk) and (isinstance(place, RowGroups) or bare(place.location).endswith(".parquet")):
        for number, row in parquet_rows(place):
            tally.lines += 1
            yield number, row
        return
    expected = "neither a JSON object nor a Python dict" if literals else "no JSON object"
    for number, line in numbered_lines(place, tally):
        try:
            value = orjson.loads(line)
        except ValueError:
            value, fault = _slowly(line, literals)
            if fault:
                tally.reject(number, fault, place.location)
                continue
        if isinstance(value, dict):
            yield number, value
        else:
            tally.reject(number, expected, place.location)


def _slowly(line: bytes, literals: bool) -> tuple[Any, str]:
    """(value, "") of a line that orjson refuses: NaN, huge numbers and lone surrogates are usable; or (None, why)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 ({error.reason})"
    try:
        return whole(json.loads(text)), ""
    except RecursionError:
        return None, "no JSON (nested too deeply)"
    except ValueError as error:
        fault = f"no JSON ({error})"
    if literals:
        try:
            return whole(ast.literal_eval(text.strip())), ""
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            fault = "neither a JSON object nor a Python dict"
    return None, fault


def whole(value: Any) -> Any:
    """The value with every lone half of a surrogate pair replaced: such text cannot be written as UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(key): whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list | tuple) else value


def parquet_rows(
    place: File | RowGroups, needed: Sequence[str] = (), wanted: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, columns) of a Parquet file or some of its row groups, batch by batch.

    `needed` columns must be there; `wanted` ones are None where they are not; without either, all columns. Raises
    DataError where the file is missing, cut off, lacks a needed column, or holds text that is no UTF-8.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(place.location, place.settings) as raw, pq.ParquetFile(raw) as file:
            present = file.schema_arrow.names
            lacking = [column for column in needed if column not in present]
            if lacking:
                raise DataError(f"{place.location}: columns are missing", found=", ".join(sorted(present)),
                                expected=", ".join(needed), mend="check the format named in the run file")  # fmt: skip
            columns = [column for column in (*needed, *wanted) if column in present] or None
            groups = list(range(place.start, place.stop)) if isinstance(place, RowGroups) else None
            number = place.first - 1 if isinstance(place, RowGroups) else 0
            blank = dict.fromkeys(wanted)
            for batch in file.iter_batches(columns=columns, batch_size=8192, row_groups=groups, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {**blank, **row} if blank else row
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        raise _not_parquet(place.location, error) from error


def row_groups_of(location: str, settings: StorageSettings | None = None, rows: int = 50_000) -> Iterator[RowGroups]:
    """A Parquet file in pieces of at least `rows` rows, where its row groups allow. Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(location, settings) as raw, pq.ParquetFile(raw) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        raise _not_parquet(location, error) from error
    start, first, held = 0, 1, 0
    for stop, size in enumerate(sizes, 1):
        held += size
        if held >= rows or stop == len(sizes):
            yield RowGroups(location, first, start, stop, settings)
            start, first, held = stop, first + held, 0


def _not_parquet(location: str, error: Exception) -> DataError:
    return DataError(
        f"{location}: not a whole Parquet file",
        found=str(error).partition("\n")[0][:200],
        expected="a Parquet file with its footer, in a form that pyarrow reads",
        mend="download the file again",
    )


def table_rows(
    place: File,
    tally: Tally,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a table with a header. A row of another width or encoding is counted as bad.

    Raises DataError where one of `columns` is missing from the header, or the header is in another encoding.
    """
    csv.field_size_limit(CELL_LIMIT)
    with open_text(place.location, encoding, place.settings, errors="surrogateescape") as file:
        rows = csv.reader(file, delimiter=delimiter)
        try:
            header = next(rows, [])
            if ESCAPED.search("".join(header)):
                raise unreadable(place.location, rows.line_num, UnicodeError(f"the header is not {encoding}"))
            if lacking := [column for column in columns if column not in header]:
                raise DataError(
                    f"{place.location}: columns are missing",
                    found=", ".join(header) or "an empty file",
                    expected=", ".join(lacking),
                    mend="check `format` of this file in the run file, or fetch the file again",
                )
            for cells in rows:
                if not cells:
                    continue
                tally.lines += 1
                if len(cells) != len(header):
                    tally.reject(rows.line_num, f"{len(cells)} cells under {len(header)} columns", place.location)
                elif ESCAPED.search("".join(cells)):
                    tally.reject(rows.line_num, f"not {encoding}", place.location)
                else:
                    yield rows.line_num, dict(zip(header, cells, strict=True))
        except (*BROKEN, csv.Error) as error:
            raise unreadable(place.location, rows.line_num + 1, error) from None


def unreadable(location: str, line: int, error: Exception) -> DataError:
    """The fault of a file that breaks off or is in another encoding."""
    return DataError(
        f"{location}, line {line}: cannot be read on",
        found=f"{type(error).__name__}: {error}",
        expected="a whole file in the encoding of its format",
        mend="fetch the file again; compare its size and sha256 with the origin's, and look after the disk",
    )


def text_of(value: object) -> str:
    """A text field as text: None, NaN and what is no text become ""; lists are joined with spaces."""
    if isinstance(value, str):
        return (
            "" if not value or (len(value) < 12 and value.strip().lower() in ("", "nan")) or value.isspace() else value
        )
    if not isinstance(value, list):
        return ""
    texts: list[str] = []
    rest = [*reversed(value)]
    while rest:  # lists may be nested more deeply than calls may be
        part = rest.pop()
        if isinstance(part, list):
            rest.extend(reversed(part))
        elif text := text_of(part):
            texts.append(text)
    return " ".join(texts)


def id_of(value: object) -> str:
    """An identifier, without white space around it; a whole number is taken as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**40 else ""
    return text_of(value).strip()
