"""Where raw bytes are, and how to get at them: a folder, S3 or http(s), packed or not, in bounded memory.

Everything below this file asks for a location and gets a seekable file; nothing is downloaded first. A remote file is
read by ranges of a few MiB, so that a file of any size passes through.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from collections.abc import Iterator
from typing import IO, Any, TextIO, cast

from ecellm.config.schema import Storage as StorageSettings
from ecellm.errors import DataError
from ecellm.sources.web import Ranged, Web, bare, is_web
from ecellm.storage.base import is_remote, join
from ecellm.storage.open import open_storage

BLOCK = 4 << 20
"""Bytes of one range of a remote file."""
EDGE = 1 << 20
"""Bytes at either end of a remote file that stand for it before it is read."""


def open_binary(location: str, settings: StorageSettings | None = None) -> IO[bytes]:
    """A file's bytes as they lie there. Raises DataError where it cannot be opened, StorageError where S3 fails."""
    try:
        if is_web(location):
            web = Web(location)
            if not web.ranged:
                return web.whole()
            return cast(IO[bytes], io.BufferedReader(Ranged(web.read, web.size), BLOCK))
        if is_remote(location):
            root, _, key = location.rpartition("/")
            storage = open_storage(root, settings)
            remote = Ranged(lambda start, length: storage.read(key, start, length), storage.size(key))
            return cast(IO[bytes], io.BufferedReader(remote, BLOCK))
        return open(location, "rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise missing(location, type(error).__name__) from None
    except OSError as error:
        raise DataError(
            f"{location}: cannot be opened",
            found=error.strerror or str(error),
            expected="a file that this account may read",
            mend="check its permissions, its links and its disk",
        ) from error


def open_unpacked(location: str, settings: StorageSettings | None = None) -> IO[bytes]:
    """The same, unpacked where the name ends in `.gz`."""
    raw = open_binary(location, settings)
    return cast(IO[bytes], Unpacked(raw)) if bare(location).endswith(".gz") else raw


class Unpacked(gzip.GzipFile):
    """A gzip reader that closes the file below it, which the library leaves open when it did not open it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        super().__init__(fileobj=raw, mode="rb")

    def close(self) -> None:
        super().close()
        self._raw.close()


def open_text(
    location: str, encoding: str = "utf-8", settings: StorageSettings | None = None, *, errors: str = "strict"
) -> TextIO:
    """A text file, unpacked; a byte order mark is no text. `errors`: what becomes of bytes that are none either."""
    raw: Any = open_unpacked(location, settings)
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    return io.TextIOWrapper(raw, encoding=name, errors=errors, newline="")


def is_folder(location: str, settings: StorageSettings | None = None) -> bool:
    """Whether a location has files below it. Raises DataError where there is nothing at all."""
    if is_web(location):
        return False
    if is_remote(location):
        return not _storage(location, settings).exists(_name(location))
    if not os.path.exists(location):
        raise missing(location)
    return os.path.isdir(location)


def files_of(location: str, settings: StorageSettings | None = None) -> list[str]:
    """The file itself, or a folder's files at any depth, sorted by name. Raises DataError where there is none."""
    if not is_folder(location, settings):
        return [location]
    if is_remote(location):
        root, name = location.rstrip("/").rpartition("/")[0], _name(location)
        found = [join(root, key) for key, _ in _storage(location, settings).list(name + "/")]
    else:
        found = [os.path.join(top, name) for top, _, names in os.walk(location, followlinks=True) for name in names]
    if not found:
        raise missing(location)
    return sorted(found)


def exists(location: str, settings: StorageSettings | None = None) -> bool:
    """Whether there is a file; on http(s) it is not asked."""
    if is_remote(location):
        return bool(_storage(location, settings).exists(_name(location)))
    return os.path.isfile(location)


def size_of(location: str, settings: StorageSettings | None = None) -> int:
    """Bytes of a file. Raises DataError where it is missing."""
    try:
        if is_web(location):
            return Web(location).size
        if is_remote(location):
            return int(_storage(location, settings).size(_name(location)))
        return os.path.getsize(location)
    except FileNotFoundError:
        raise missing(location) from None


def digest_of(location: str, settings: StorageSettings | None = None) -> str:
    """sha256 of a file on this machine; of a remote one its size and edges, which are there without reading it all."""
    if not is_web(location) and not is_remote(location):
        with open_binary(location) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    size = size_of(location, settings)
    with open_binary(location, settings) as file:
        if not size:  # a server that does not tell: what was fetched tells
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        first = file.read(EDGE)
        file.seek(max(0, size - EDGE))
        return "edges:" + hashlib.sha256(f"{size}\0".encode() + first + file.read(EDGE)).hexdigest()


def blocks_of(location: str, settings: StorageSettings | None = None) -> Iterator[bytes]:
    """The bytes of a file in order, as they lie there."""
    with open_binary(location, settings) as file:
        while block := file.read(BLOCK):
            yield block


def missing(location: str, found: str = "nothing") -> DataError:
    """The fault of a file or folder that is not there."""
    return DataError(
        f"{location}: no such file",
        found=found,
        expected="a raw file or folder that a [[sources.files]] entry names",
        mend="correct `path` or sources.root in the run file, or fetch the file",
    )


def _storage(location: str, settings: StorageSettings | None) -> Any:
    return open_storage(location.rstrip("/").rpartition("/")[0], settings)


def _name(location: str) -> str:
    return location.rstrip("/").rpartition("/")[2]
