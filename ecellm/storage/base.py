"""One small protocol for a folder and for S3, so that it makes no difference where artefacts live.

Locations are strings (`Path` folds `s3://` into `s3:/`); `join` is the only place that builds one. Keys are relative
to the storage's root and use `/`. A missing object is `FileNotFoundError` with its full URL; every other trouble is
`StorageError`. A write is whole or absent: no reader ever sees half an object.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from ecellm.errors import StorageError


class Storage(Protocol):
    """Objects under one root."""

    root: str
    """The folder or s3:// prefix, without a trailing slash."""

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, or `length` of them from `start`. Raises FileNotFoundError, StorageError."""

    def write(self, key: str, data: bytes) -> None:
        """Put an object, replacing what was there. Raises StorageError."""

    def write_new(self, key: str, data: bytes) -> bool:
        """Put an object only where there is none; False where there was another. A lost reply counts as won."""

    def upload(self, path: str, key: str) -> None:
        """Put the local file `path`, streaming it. Raises StorageError."""

    def upload_stream(self, stream: BinaryIO | io.RawIOBase, key: str) -> None:
        """Put all bytes of a seekable stream; parts of it may be read more than once. Raises StorageError."""

    def sweep(self, prefix: str) -> int:
        """Remove what writers that died left behind under `prefix`; no reader ever saw it. Returns how many.

        Only for prefixes that nobody writes to at the moment. Raises StorageError, FileNotFoundError; no work depends
        on it, so callers tell such troubles and go on.
        """

    def download(self, key: str, path: str) -> None:
        """Write an object to the local file `path`, streaming it. Raises FileNotFoundError, StorageError."""

    def size(self, key: str) -> int:
        """Bytes of an object. Raises FileNotFoundError."""

    def exists(self, key: str) -> bool:
        """Whether there is an object of this key."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Keys under `prefix` with their sizes, sorted, every page."""

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""


def is_remote(location: str) -> bool:
    """Whether a location is in S3."""
    return location.startswith("s3://")


def join(root: str, *parts: str) -> str:
    """Join a location and keys: `join("s3://b/p", "rows", "a.parquet")` is `s3://b/p/rows/a.parquet`."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts if part.strip("/"))])


def split(root: str) -> tuple[str, str]:
    """Bucket and key prefix (empty, or ending in `/`) of an s3:// location. Raises StorageError without a bucket."""
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise StorageError(f"{root}: no bucket name", found=repr(bucket), expected="s3://bucket/prefix")
    return bucket, prefix.strip("/") + "/" if prefix.strip("/") else ""
