"""MADE UP: the few ways in which the invented raw files are put on disk, byte for byte the same each time.

Not a storage layer: raw files are written to a local folder before a run. One decision to know: gzip members carry
no name and no time, since those would change the bytes from run to run.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

BROKEN_SHARE = 0.04
"""Of the records with a fault, those whose line is cut short; kept rare since readers give up on lines."""


@contextmanager
def text_file(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """A text file, gzipped when its name ends so; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            with io.TextIOWrapper(raw, encoding=encoding, newline="") as text:
                yield text
            return
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=raw, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding=encoding, newline="") as text,
        ):
            yield text


def json_line(record: object) -> str:
    """One JSON line, ASCII as the real files have it."""
    return json.dumps(record) + "\n"


def cut_short(line: str) -> str:
    """A line as a broken download leaves it: its first half."""
    return line[: len(line) // 2].rstrip() + "\n"
