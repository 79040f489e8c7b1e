"""The storage protocol on a folder. A write goes to a temporary file beside its target, is synced, then renamed.

Not for sharing one key between machines that write it at once, except through `write_new`: a hard link is the
operation that both local disks and NFS do for one caller only.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from ecellm.errors import StorageError

TEMPORARY = ".ecellm-tmp-"


class LocalStorage:
    """Objects are files under `root`."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") or "/"

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        path = self._path(key)
        with told("read", path), open(path, "rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def write(self, key: str, data: bytes) -> None:
        self._replace(key, lambda file: file.write(data))

    def write_new(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with told("write", path):
            temporary = self._fill(path, lambda file: file.write(data))
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary)
            _sync_folder(path)
            return True

    def upload(self, path: str, key: str) -> None:
        with told("read", path), open(path, "rb") as source:
            self._replace(key, lambda file: shutil.copyfileobj(source, file, 1 << 20))

    def upload_stream(self, stream: BinaryIO | io.RawIOBase, key: str) -> None:
        stream.seek(0)
        self._replace(key, lambda file: shutil.copyfileobj(stream, file, 1 << 22))

    def sweep(self, prefix: str) -> int:
        count = 0
        for folder, _, names in os.walk(self._path(prefix), onerror=_walk_trouble):
            for name in names:
                if name.startswith(TEMPORARY):
                    with told("delete", folder), suppress(FileNotFoundError):
                        os.unlink(os.path.join(folder, name))
                        count += 1
            self._drop_empty(folder)
        return count

    def download(self, key: str, path: str) -> None:
        source_path = self._path(key)
        with told("read", source_path), open(source_path, "rb") as source, told("write", path):
            os.replace(self._fill(path, lambda file: shutil.copyfileobj(source, file, 1 << 20)), path)

    def size(self, key: str) -> int:
        path = self._path(key)
        with told("read", path):
            if os.path.isdir(path):
                raise FileNotFoundError(errno.ENOENT, "no such object", path)
            return os.path.getsize(path)

    def exists(self, key: str) -> bool:
        return os.path.isfile(self._path(key))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        top = self._path(prefix) if prefix.strip("/") else self.root
        for folder, _, names in os.walk(top, followlinks=True, onerror=_walk_trouble):
            for name in names:
                if not name.startswith(TEMPORARY):
                    path = os.path.join(folder, name)
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        found.append((os.path.relpath(path, self.root).replace(os.sep, "/"), os.path.getsize(path)))
        yield from sorted(found, key=lambda pair: pair[0].encode("utf-8", "surrogateescape"))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with told("delete", path):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
            self._drop_empty(os.path.dirname(path))

    def _drop_empty(self, folder: str) -> None:
        # S3 has no empty folders, so a listing of either must not tell the two apart.
        while len(folder) > len(self.root):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def _replace(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        path = self._path(key)
        with told("write", path):
            os.replace(self._fill(path, fill), path)
            _sync_folder(path)

    @staticmethod
    def _fill(path: str, fill: Callable[[BinaryIO], object]) -> str:
        """Path of a synced temporary file beside `path`; on failure nothing stays."""
        folder = os.path.dirname(path) or "."
        temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}")
        os.makedirs(folder, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return temporary

    def _path(self, key: str) -> str:
        parts = [part for part in key.split("/") if part]
        if not parts or any(part in (".", "..") for part in parts):
            raise StorageError(f"{key!r} is no key under {self.root}", expected="a relative key without '..'")
        return os.path.join(self.root, *parts)


def _sync_folder(path: str) -> None:
    # Without it a crash of the machine can lose the rename although the file's bytes are safe.
    handle = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _walk_trouble(trouble: OSError) -> None:
    if not isinstance(trouble, FileNotFoundError | NotADirectoryError):
        raise StorageError(f"{trouble.filename}: cannot list", found=str(trouble.strerror)) from trouble


@contextmanager
def told(doing: str, path: str) -> Iterator[None]:
    """Turn an OSError into FileNotFoundError with the full path, or StorageError with the mend.

    Args:
        doing: `read`, `write`, `delete` …, for the message.
        path: the file or folder, for the message.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as trouble:
        if doing == "read":
            raise FileNotFoundError(errno.ENOENT, "no such object", path) from trouble
        raise StorageError(f"{path}: cannot {doing}", found=str(trouble), mend="check the path") from trouble
    except OSError as trouble:
        raise StorageError(
            f"{path}: cannot {doing}", found=str(trouble.strerror or trouble), mend=_mend(trouble.errno)
        ) from trouble


def _mend(code: int | None) -> str:
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "free some space on this disk or choose another place with --out, then run the same command again"
    if code == errno.EFBIG:
        return "raise this shell's limit on file sizes (ulimit -f unlimited), then run the same command again"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give this user the right to the folder, or choose another place with --out"
    if code in (errno.ENOTDIR, errno.EEXIST):
        return "a file stands where a folder is needed: remove it or choose another place with --out"
    return "check the disk, then run the same command again"
