"""What only a folder has: disks that are full, folders that may not be written, writers that die."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ecellm.errors import StorageError
from ecellm.storage.local import LocalStorage


def test_a_file_in_a_folders_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        LocalStorage(str(tmp_path)).download(_object(tmp_path), str(tmp_path / "file/x"))
    assert caught.value.exit_code == 4
    assert "a file stands where a folder is needed" in caught.value.mend


def test_no_space_names_the_mend_and_leaves_nothing(tmp_path: Path) -> None:
    import errno

    class Full(LocalStorage):
        @staticmethod
        def _fill(path: str, fill: Callable[..., object]) -> str:
            def burst(file: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return LocalStorage._fill(path, burst)

    storage = Full(str(tmp_path))
    (tmp_path / "k").write_bytes(b"before")
    with pytest.raises(StorageError, match="No space left") as caught:
        storage.write("k", b"after")
    assert "free some space" in caught.value.mend
    assert storage.read("k") == b"before"
    assert os.listdir(tmp_path) == ["k"]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(StorageError, match="cannot write") as caught:
        LocalStorage(str(tmp_path)).write("a/b", b"x")
    assert "a file stands where a folder is needed" in caught.value.mend


def test_what_a_killed_writer_left_is_not_listed(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    (tmp_path / ".ecellm-tmp-123").write_text("half")
    storage.write("whole", b"x")
    assert list(storage.list()) == [("whole", 1)]


def _object(folder: Path) -> str:
    (folder / "object").write_bytes(b"x" * 10)
    return "object"
