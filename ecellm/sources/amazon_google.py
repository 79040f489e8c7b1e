"""Leipzig Amazon-Google Products: two catalogues and their mapping, three CSV files in one folder.

The files are latin-1 in the original and UTF-8 in some copies; both are read. A file is known by its columns, so a
single file may be given instead of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.lines import table_rows, text_of
from ecellm.sources.records import CatalogueItem, Match, SourceRecord
from ecellm.sources.tally import Tally

FILES = ("Amazon.csv", "GoogleProducts.csv", "Amzon_GoogleProducts_perfectMapping.csv")


def read(location: str, source: SourceFile, tally: Tally) -> Iterator[SourceRecord]:
    """Catalogue entries and matches. Raises DataError where a file of the folder is missing."""
    if not os.path.isdir(location):
        yield from _read_file(location, tally)
        return
    lacking = [name for name in FILES if not os.path.exists(os.path.join(location, name))]
    if lacking:
        raise DataError(f"{location}: files are missing", found=", ".join(sorted(os.listdir(location)))[:300],
                        expected=", ".join(FILES), mend="unpack the whole Amazon-Google archive there")  # fmt: skip
    for name in FILES:
        yield from _read_file(os.path.join(location, name), tally)


def _read_file(path: str, tally: Tally) -> Iterator[SourceRecord]:
    for line, row in table_rows(path, tally, (), encoding=_encoding(path)):
        if "idAmazon" in row and "idGoogleBase" in row:
            record: SourceRecord | None = _match(row)
        else:
            record = _item(row)
        if record is None:
            tally.reject(line, "no id or no title", path)
        else:
            tally.good()
            yield record


def _encoding(path: str) -> str:
    """UTF-8 where the whole file is, else latin-1."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _match(row: dict[str, str]) -> Match | None:
    left, right = row["idAmazon"].strip(), row["idGoogleBase"].strip()
    return Match(amazon=left, google=right) if left and right else None


def _item(row: dict[str, str]) -> CatalogueItem | None:
    title, number = (
        text_of(row.get("title", row.get("name"))),
        str(row.get("id", "")).strip(),
    )
    if not title or not number:
        return None
    return CatalogueItem(
        catalogue="amazon" if "title" in row else "google",
        id=number,
        title=title,
        description=text_of(row.get("description")) or None,
        manufacturer=text_of(row.get("manufacturer")) or None,
        price=text_of(row.get("price")) or None,
    )
