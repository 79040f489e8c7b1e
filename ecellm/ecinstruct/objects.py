"""JSON objects of an array or of lines, one after the other, held in a buffer whatever the file's size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from ecellm.config.schema import Storage as StorageSettings
from ecellm.errors import DataError
from ecellm.sources.lines import BROKEN
from ecellm.sources.opening import open_text

CHUNK = 1 << 20
LONGEST = 1 << 25
"""Longest record in characters before the file counts as broken."""
Record = dict[str, Any]


def json_records(path: str, settings: StorageSettings | None = None) -> Iterator[tuple[int, Record]]:
    """(number from 1, object) of a JSON array or of JSON lines, streamed. The bare token NaN is read as NaN."""
    with open_text(path, settings=settings) as file:
        yield from objects_of(file, path)


def objects_of(file: TextIO, path: str) -> Iterator[tuple[int, Record]]:
    """The same of an open file; `path` is what a fault calls it. Raises DataError where the text breaks."""
    decoder, buffer, number, line, ended = json.JSONDecoder(), "", 0, 1, False
    while True:
        start = _skip(buffer)
        line, buffer = line + buffer.count("\n", 0, start), buffer[start:]
        try:
            value, end = decoder.raw_decode(buffer) if buffer else (None, 0)
        except json.JSONDecodeError as error:
            if ended or len(buffer) > LONGEST:
                raise _broken(path, line + error.lineno - 1, number, str(error.msg), buffer[:60]) from None
            end = 0
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
            raise _broken(path, line, number, str(error), buffer[:60]) from None
        if end == 0 or (end == len(buffer) and not ended):
            if ended:
                return
            more = _read(file, path, line, number)
            ended, buffer = not more, buffer + more
            continue
        number += 1
        if not isinstance(value, dict):
            raise _broken(path, line, number, "not an object", buffer[:60])
        yield number, value
        line, buffer = line + buffer.count("\n", 0, end), buffer[end:]


def _skip(buffer: str) -> int:
    """Where the next record starts: after brackets, commas and white space."""
    start = 0
    while start < len(buffer) and buffer[start] in " \t\r\n,[]":
        start += 1
    return start


def _read(file: Any, path: str, line: int, number: int) -> str:
    try:
        return str(file.read(CHUNK))
    except UnicodeDecodeError as error:
        raise _broken(path, line, number, f"not UTF-8 ({error.reason})", "") from None
    except BROKEN as error:
        raise _broken(path, line, number, f"cut off ({type(error).__name__})", "") from None


def _broken(path: str, line: int, number: int, reason: str, shown: str) -> DataError:
    return DataError(f"{path}, line {line}: broken after record {number}", found=f"{reason}; {shown!r}",
                     expected="a JSON array of objects, or one JSON object a line",
                     mend="download the file again and compare its size with the origin's")  # fmt: skip
