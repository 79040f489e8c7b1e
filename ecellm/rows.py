"""Instruction rows in Parquet: one file for each split, in the published columns plus ours.

Equal rows give equal bytes: a fixed column order, one compression, and no time of writing in the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecellm.errors import DataError
from ecellm.records import ROW_COLUMNS, SPLITS, Row
from ecellm.storage.base import Storage, join

GROUP = 8192
"""Rows in one Parquet row group, and in memory at a time."""
_COLUMNS = attrgetter(*ROW_COLUMNS)
SCHEMA = pa.schema([(name, pa.string()) for name in ROW_COLUMNS])


def write_rows(storage: Storage, folder: str, rows: Iterable[Row], part: str = "part-00000") -> None:
    """Write `folder/{split}/{part}.parquet` for every split that the rows have."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.split, []).append(row)
    for split in sorted(groups):
        write_split(storage, folder, split, groups[split], part)


def write_split(storage: Storage, folder: str, split: str, rows: Iterable[Row], part: str = "part-00000") -> int:
    """Write `folder/{split}/{part}.parquet` in bounded memory, and no file for no rows. Returns the number of rows."""
    written, waiting = 0, iter(rows)
    with tempfile.NamedTemporaryFile(prefix="ecellm-rows-") as file:
        with pq.ParquetWriter(file.name, SCHEMA, compression="zstd") as writer:
            while batch := list(islice(waiting, GROUP)):
                columns = zip(*map(_COLUMNS, batch), strict=True)
                arrays = [pa.array(column, pa.string()) for column in columns]
                writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), row_group_size=GROUP)
                written += len(batch)
        if written:
            storage.upload(file.name, join(folder, split, f"{part}.parquet"))
    return written


def row_files(storage: Storage, folder: str, split: str) -> list[str]:
    """Keys of a split's Parquet files, sorted."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}", expected=", ".join(SPLITS), mend="name one of these")
    return [key for key, _ in storage.list(join(folder, split) + "/") if key.endswith(".parquet")]


def read_table(storage: Storage, key: str) -> pa.Table:
    """One Parquet file of rows. Raises DataError where it is truncated or has other columns."""
    url = join(storage.root, key)
    try:
        # Without Arrow's threads: one that starts as the process ends has aborted it, and its exit code with it.
        table = pq.ParquetFile(pa.BufferReader(storage.read(key))).read(use_threads=False)
    except FileNotFoundError as error:
        raise DataError(f"{url}: missing", expected="a rows file", mend="run `ecellm build` first") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{url}: cannot be read as Parquet",
            found=str(error).partition("\n")[0],
            expected="a whole rows file",
            mend="delete the folder that holds it and run `ecellm build` again",
        ) from error
    missing = [name for name in ROW_COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"{url}: columns are missing",
            found=", ".join(table.column_names),
            expected=", ".join(missing) + " as well",
            mend="build the rows again with this version",
        )
    return table.select(list(ROW_COLUMNS))


def table_rows(table: pa.Table) -> Iterator[Row]:
    """The rows of a table, in order."""
    for record in table.to_pylist():
        yield Row(**record)


def read_rows(
    storage: Storage, folder: str = "rows", *, split: str, setting: str | None = None, task: str | None = None
) -> list[Row]:
    """Rows of a split in file order, of one setting and one task (published name) where given."""
    rows: list[Row] = []
    for key in row_files(storage, folder, split):
        table = read_table(storage, key)
        for column, value in (("setting", setting), ("task", task)):
            if value is not None:
                table = table.filter(pc.equal(table[column], value))
        rows.extend(table_rows(table))
    return rows
