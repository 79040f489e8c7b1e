"""The storage protocol on a folder. A write goes to a temporary name, is flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ecellm.errors import StorageError
from ecellm.storage.base import join

_TEMPORARY = ".partial-"


class LocalStorage:
    """Objects as files under `root`."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def _path(self, key: str) -> str:
        return join(self.root, key)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file, or a range of them."""
        with _told(self._path(key)), open(self._path(key), "rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def write(self, key: str, data: bytes) -> None:
        """Put a file in one piece."""
        with self._fresh(key) as temporary:
            _spill(temporary, data)
            os.replace(temporary, self._path(key))

    def write_new(self, key: str, data: bytes) -> bool:
        """Put a file where there is none: `link` fails where the name is taken."""
        with self._fresh(key) as temporary:
            _spill(temporary, data)
            try:
                os.link(temporary, self._path(key))
            except FileExistsError:
                return False
            return True

    def upload(self, path: str, key: str) -> None:
        """Copy a local file in."""
        with self._fresh(key) as temporary:
            shutil.copyfile(path, temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self._path(key))

    def download(self, key: str, path: str) -> None:
        """Copy a file out."""
        with _told(self._path(key)):
            if not os.path.isfile(self._path(key)):
                raise FileNotFoundError(errno.ENOENT, "no such file", self._path(key))
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            shutil.copyfile(self._path(key), path)

    def size(self, key: str) -> int:
        """Bytes of a file."""
        with _told(self._path(key)):
            return os.stat(self._path(key)).st_size

    def exists(self, key: str) -> bool:
        """Whether the file is there."""
        return os.path.isfile(self._path(key))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Files whose key starts with `prefix`, sorted; half-written ones are not shown."""
        found = []
        with _told(self.root):
            for folder, _, names in os.walk(self.root):
                for name in names:
                    path = os.path.join(folder, name)
                    key = os.path.relpath(path, self.root).replace(os.sep, "/")
                    if key.startswith(prefix) and not name.startswith(_TEMPORARY):
                        found.append((key, os.stat(path).st_size))
        yield from sorted(found)

    def delete(self, key: str) -> None:
        """Remove a file, and the folders that it leaves empty."""
        with _told(self._path(key)):
            try:
                os.remove(self._path(key))
            except FileNotFoundError:
                return
        folder = os.path.dirname(self._path(key))
        while folder.startswith(self.root + os.sep) and not os.listdir(folder):
            os.rmdir(folder)
            folder = os.path.dirname(folder)

    @contextmanager
    def _fresh(self, key: str) -> Iterator[str]:
        folder = os.path.dirname(self._path(key))
        temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            with _told(self._path(key)):
                os.makedirs(folder, exist_ok=True)
                yield temporary
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)


def _spill(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn the system's errors, but a missing file, into StorageError with the mend."""
    mends = {
        errno.ENOSPC: "free some space, or set `out` to another disk or to s3://",
        errno.EDQUOT: "free some of your quota, or set `out` elsewhere",
        errno.EACCES: "choose a folder that this user may write",
        errno.EROFS: "choose a file system that can be written",
    }
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        mend = mends.get(error.errno or 0, "check the disk and the path")
        raise StorageError(f"{path}: {error.strerror or error}", found=f"errno {error.errno}", mend=mend) from error
