"""Leipzig Amazon-Google Products: two catalogues and their mapping, three CSV files in one folder.

The files are latin-1 in the original and UTF-8 in some copies; both are read. A file is known by its columns, so a
single file may be given instead of the folder.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator

from ecellm.config.schema import SourceFile
from ecellm.config.schema import Storage as StorageSettings
from ecellm.errors import DataError
from ecellm.sources.lines import BROKEN, File, table_rows, text_of, unreadable
from ecellm.sources.opening import files_of, is_folder, open_unpacked
from ecellm.sources.records import CatalogueItem, Match, SourceRecord
from ecellm.sources.tally import Tally

FILES = ("Amazon.csv", "GoogleProducts.csv", "Amzon_GoogleProducts_perfectMapping.csv")


def files(location: str, source: SourceFile, settings: StorageSettings | None) -> list[tuple[str, str]]:
    """(file, split) of the three files. Raises DataError where one of a folder is missing."""
    if not is_folder(location, settings):
        return [(location, source.split)]
    found = {os.path.basename(path): path for path in files_of(location, settings)}
    if any(name not in found for name in FILES):
        raise DataError(f"{location}: files are missing", found=", ".join(sorted(found))[:300],
                        expected=", ".join(FILES), mend="unpack the whole Amazon-Google archive there")  # fmt: skip
    return [(found[name], source.split) for name in FILES]


def read(place: File, source: SourceFile, tally: Tally) -> Iterator[SourceRecord]:
    """Catalogue entries or matches of one file."""
    for line, row in table_rows(place, tally, (), encoding=_encoding(place)):
        if "idAmazon" in row and "idGoogleBase" in row:
            record: SourceRecord | None = _match(row, line)
        else:
            record = _item(row, line)
        if record is None:
            tally.reject(line, "no id or no title", place.location)
        else:
            tally.good()
            yield record


def _encoding(place: File) -> str:
    """UTF-8 where the whole file is, else latin-1. Raises DataError where the file breaks off."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_unpacked(place.location, place.settings) as file:
        try:
            while block := file.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
        except BROKEN as error:
            raise unreadable(place.location, 1, error) from None
    return "utf-8"


def _match(row: dict[str, str], line: int) -> Match | None:
    left, right = row["idAmazon"].strip(), row["idGoogleBase"].strip()
    return Match(amazon=left, google=right, line=line) if left and right else None


def _item(row: dict[str, str], line: int) -> CatalogueItem | None:
    title, number = text_of(row.get("title", row.get("name"))), row.get("id", "").strip()
    if not title or not number:
        return None
    return CatalogueItem(
        catalogue="amazon" if "title" in row else "google",
        id=number,
        title=title,
        description=text_of(row.get("description")) or None,
        manufacturer=text_of(row.get("manufacturer")) or None,
        price=text_of(row.get("price")) or None,
        line=line,
    )
