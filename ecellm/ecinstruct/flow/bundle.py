"""A bundle: the rows that one piece of work hands on, in Arrow, sorted into parts, with its facts, in one object.

    segment, segment, …   Arrow IPC streams, each some rows of one table and one part
    footer                JSON: {"facts": …, "segments": {table: {part: [[offset, bytes, rows], …]}}}
    length, magic         of the footer, 16 bytes

So a worker that wants part 7 of a table reads its segments alone, from a disk or from S3, and a bundle that was cut off
has no footer and counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa

from ecellm.ecinstruct.flow.scratch import Scratch

MAGIC = b"ecellm\x00\x01"
TAIL = 16
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
Tables = Mapping[str, pa.Schema]
Row = tuple[Any, ...]


class Writer:
    """Writes segments to an open file; `close` adds the footer."""

    def __init__(self, file: IO[bytes], tables: Tables) -> None:
        self._file, self._tables = file, tables
        self._segments: dict[str, dict[str, list[list[int]]]] = {}
        self._at = 0

    def rows(self, table: str, part: int, rows: Sequence[Row], schema: pa.Schema | None = None) -> None:
        """One segment of rows; `schema` for tables that no mapping names."""
        if rows:
            self.table(table, part, to_table(rows, schema or self._tables[table]))

    def table(self, name: str, part: int, table: pa.Table) -> None:
        """One segment of an Arrow table."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as stream:
            stream.write_table(table)
        data = sink.getvalue()
        self._file.write(data)
        place = [self._at, data.size, table.num_rows]
        self._segments.setdefault(name, {}).setdefault(str(part), []).append(place)
        self._at += data.size

    def close(self, facts: Mapping[str, Any]) -> None:
        """Write the footer."""
        footer = json.dumps({"facts": facts, "segments": self._segments}, separators=(",", ":")).encode()
        self._file.write(footer + len(footer).to_bytes(TAIL - len(MAGIC), "big") + MAGIC)


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Tuples to an Arrow table."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def to_rows(table: pa.Table) -> Iterator[Row]:
    """An Arrow table to tuples."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


class Bundle:
    """A written bundle. Raises FileNotFoundError where it is absent or cut off."""

    def __init__(self, scratch: Scratch, name: str) -> None:
        self.name, self._scratch = name, scratch
        size = scratch.size(name)
        tail = scratch.read(name, size - TAIL, TAIL) if size >= TAIL else b""
        if tail[-len(MAGIC) :] != MAGIC:
            raise FileNotFoundError(name)
        length = int.from_bytes(tail[: TAIL - len(MAGIC)], "big")
        said = json.loads(scratch.read(name, size - TAIL - length, length))
        self.facts: dict[str, Any] = said["facts"]
        self._segments: dict[str, dict[str, list[list[int]]]] = said["segments"]

    def segments(self, table: str, part: int | None = None) -> Iterator[pa.Table]:
        """Segments of a table in the order of writing; of one part, or of all parts in order."""
        parts = self._segments.get(table, {})
        for key in [str(part)] if part is not None else sorted(parts, key=int):
            for offset, length, _ in parts.get(key, ()):
                data = self._scratch.read(self.name, offset, length)
                with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
                    yield stream.read_all()

    def count(self, table: str) -> int:
        """Rows of a table."""
        return sum(rows for places in self._segments.get(table, {}).values() for _, _, rows in places)


def whole(bundles: Iterable[Bundle], table: str, schema: pa.Schema, part: int | None = None) -> pa.Table:
    """A table, or a part of it, over all bundles, in their order."""
    found = [segment for bundle in bundles for segment in bundle.segments(table, part)]
    return pa.concat_tables(found) if found else schema.empty_table()
