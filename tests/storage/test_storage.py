"""One class of promises, kept by a folder and by S3 alike."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ecellm.errors import StorageError
from ecellm.storage.base import Storage, is_remote
from ecellm.storage.open import open_storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    root = str(tmp_path / "out") if request.param == "folder" else request.getfixturevalue("s3")
    return open_storage(root)


class TestStorage:
    """What every caller may rely on, wherever OUT is."""

    def test_reads_back_what_was_written(self, storage: Storage) -> None:
        storage.write("a/b.txt", b"one")
        storage.write("a/b.txt", b"two!")
        assert storage.read("a/b.txt") == b"two!"
        assert storage.size("a/b.txt") == 4

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [(0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (8, 9, b"89"), (4, 0, b""), (10, 5, b"")],
    )
    def test_reads_ranges(self, storage: Storage, start: int, length: int | None, expected: bytes) -> None:
        storage.write("r", b"0123456789")
        assert storage.read("r", start, length) == expected

    def test_empty_object(self, storage: Storage) -> None:
        storage.write("empty", b"")
        assert storage.read("empty") == b""
        assert storage.exists("empty")

    def test_missing_object_is_named_in_full(self, storage: Storage) -> None:
        for call in (storage.read, storage.size, lambda key: storage.download(key, os.devnull + "x")):
            with pytest.raises(FileNotFoundError) as caught:
                call("no/such.bin")
            assert caught.value.filename == f"{storage.root}/no/such.bin"
        assert not storage.exists("no/such.bin")
        storage.delete("no/such.bin")

    def test_write_new_has_one_winner(self, storage: Storage) -> None:
        assert storage.write_new("lock", b"same")
        assert not storage.write_new("lock", b"same")
        assert storage.read("lock") == b"same"

    def test_list_is_a_folder_sorted_and_whole(self, storage: Storage) -> None:
        for key in ("b/2", "b/10", "b-side/1", "a", "b/c/d"):
            storage.write(key, key.encode())
        everything = [("a", 1), ("b-side/1", 8), ("b/10", 4), ("b/2", 3), ("b/c/d", 5)]
        assert list(storage.list()) == everything
        assert list(storage.list("b")) == list(storage.list("b/")) == everything[2:]
        assert list(storage.list("nowhere")) == []

    def test_delete_leaves_no_folder_behind(self, storage: Storage) -> None:
        storage.write("x/y/z", b"1")
        storage.delete("x/y/z")
        assert list(storage.list()) == []
        assert not storage.exists("x/y/z")
        if not is_remote(storage.root):
            assert os.listdir(storage.root) == []

    def test_files_go_up_and_down(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "up").write_bytes(os.urandom(6 << 20))
        storage.upload(str(tmp_path / "up"), "big/file.bin")
        assert storage.size("big/file.bin") == 6 << 20
        storage.download("big/file.bin", str(tmp_path / "new" / "down"))
        assert (tmp_path / "new" / "down").read_bytes() == (tmp_path / "up").read_bytes()
        assert os.listdir(tmp_path / "new") == ["down"]

    def test_streams_go_up(self, storage: Storage) -> None:
        data = os.urandom((17 << 20) + 3)
        stream = io.BytesIO(data)
        stream.seek(5)
        storage.upload_stream(stream, "big/stream.bin")
        assert storage.read("big/stream.bin") == data
        storage.upload_stream(io.BytesIO(b""), "big/stream.bin")
        assert storage.read("big/stream.bin") == b""

    def test_sweeping_takes_nothing_that_can_be_read(self, storage: Storage) -> None:
        storage.write("a/b", b"1")
        assert storage.sweep("a") == 0
        assert storage.sweep("nowhere") == 0
        assert storage.read("a/b") == b"1"

    @pytest.mark.parametrize("key", ["", "../x", "a/../../x"])
    def test_no_key_leaves_the_root(self, storage: Storage, key: str) -> None:
        with pytest.raises(StorageError, match="is no key"):
            storage.write(key, b"")

    def test_names_of_any_script(self, storage: Storage) -> None:
        storage.write("größe/色 1+2.txt", b"x")
        assert [key for key, _ in storage.list()] == ["größe/色 1+2.txt"]


def test_unknown_locations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in ("gs://bucket/x", "s3://", str(tmp_path / "file")):
        with pytest.raises(StorageError, match=r"s3://bucket/prefix"):
            open_storage(root)
