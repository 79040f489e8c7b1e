"""Objects of a build in progress: written once, whole or absent, read by ranges. Gone when the build is done.

Not the storage of artefacts: nothing here is synced to the disk, since what a crash loses is made again. A folder or an
s3:// prefix that every worker sees.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from ecellm.config.schema import Storage as Settings
from ecellm.storage.base import is_remote, join
from ecellm.storage.local import told
from ecellm.storage.open import open_storage


class Scratch:
    """Objects under `root`."""

    def __init__(self, root: str, settings: Settings | None = None) -> None:
        self.root = root.rstrip("/")
        self._remote = open_storage(self.root, settings) if is_remote(self.root) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scratch) and other.root == self.root

    def __hash__(self) -> int:
        return hash(self.root)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file that becomes the object `name` when the block ends well, and nothing when it does not."""
        if self._remote is not None:
            with tempfile.NamedTemporaryFile(prefix="ecellm-part-") as file:
                yield file
                file.flush()
                self._remote.upload(file.name, name)
            return
        path = self._path(name)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        with told("write", path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                with open(temporary, "xb", buffering=1 << 20) as file:
                    yield file
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object. Raises FileNotFoundError."""
        if self._remote is not None:
            return self._remote.read(name, start, length)
        with open(self._path(name), "rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def size(self, name: str) -> int:
        """Bytes of an object; -1 where there is none."""
        try:
            return os.path.getsize(self._path(name)) if self._remote is None else self._remote.size(name)
        except FileNotFoundError:
            return -1

    def path(self, name: str) -> str | None:
        """The local file of an object, to be mapped into memory; None where it is remote."""
        return None if self._remote is not None else self._path(name)

    def clear(self) -> None:
        """Remove everything under the root."""
        if self._remote is None:
            shutil.rmtree(self.root, ignore_errors=True)
            with suppress(OSError):
                os.rmdir(os.path.dirname(self.root))
            return
        for key, _ in list(self._remote.list("")):
            self._remote.delete(key)

    def _path(self, name: str) -> str:
        return join(self.root, name)
