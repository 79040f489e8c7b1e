"""The copy of a split's tokens that workers of a machine share is believed by its content, and made again else."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ecellm.data.shards import (
    FOLDER,
    INDEX_SCHEMA,
    SHARD_SCHEMA,
    content_fingerprint,
    index_key,
    load_tokens,
    parquet_bytes,
    shard_key,
)
from ecellm.errors import StorageError
from ecellm.stage import publish
from ecellm.storage.local import LocalStorage

PROMPTS, ANSWERS = [[1, 2, 3], [4]], [[5], [6, 7]]
FLAT = [1, 2, 3, 5, 4, 6, 7]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """Two samples in one shard, as prepare leaves them."""
    storage = LocalStorage(str(tmp_path / "out"))
    lengths = [[len(one) for one in many] for many in (PROMPTS, ANSWERS)]
    shard = pa.table([["a", "b"], [0, 1], PROMPTS, ANSWERS], schema=SHARD_SCHEMA)
    index = pa.table([["a", "b"], [0, 1], *lengths], schema=INDEX_SCHEMA)
    digests = []
    for key, table in ((shard_key("train", 0), shard), (index_key("train"), index)):
        storage.write(key, data := parquet_bytes(table))
        digests.append(hashlib.sha256(data).hexdigest())
    arrays = [np.array(one, np.int32) for one in (*lengths, FLAT)]
    facts = {"fingerprint": content_fingerprint(index["id"], *arrays), "index_sha256": digests[1],
             "shards": [{"sha256": digests[0]}]}  # fmt: skip
    publish(storage, FOLDER, "f0", splits={"train": facts})
    return storage


def npy(values: list[int], kind: Any = np.int32) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array(values, kind))
    return sink.getvalue()


@pytest.mark.parametrize(
    "left",
    [b"", b"\0" * 156, npy(FLAT)[:-4], npy(FLAT)[:40], npy(FLAT[::-1]), npy([0] * 7), npy(FLAT, np.int64),
     b"PK\x03\x04" + bytes(40)],
    ids=["empty", "zeros", "cut", "head cut", "another order", "same length", "another kind", "zip"],
)  # fmt: skip
def test_a_copy_that_a_crash_or_somebody_else_left_is_made_again(
    storage: LocalStorage, tmp_path: Path, left: bytes
) -> None:
    cache = str(tmp_path / "cache")
    assert load_tokens(storage, "train", cache).tokens.tolist() == FLAT
    [kept] = (tmp_path / "cache").iterdir()
    kept.unlink()
    kept.write_bytes(left)
    assert load_tokens(storage, "train", cache).tokens.tolist() == FLAT
    assert kept.read_bytes() == npy(FLAT)


def test_a_copy_that_holds_spares_reading_the_shards(storage: LocalStorage, tmp_path: Path) -> None:
    load_tokens(storage, "train", str(tmp_path / "cache"))
    storage.delete(shard_key("train", 0))
    tokens = load_tokens(storage, "train", str(tmp_path / "cache"))
    assert isinstance(tokens.tokens, np.memmap)
    assert [part.tolist() for part in tokens.sample(1)] == [[4], [6, 7]]


def test_the_copy_is_on_the_disk_before_it_has_its_name(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("name"), replace(a, b)))
    load_tokens(storage, "train", str(tmp_path / "cache"))
    assert done == ["sync", "name"]


def test_a_disk_that_is_full_is_told_and_nothing_is_left(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match="cannot write"):
        load_tokens(storage, "train", str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())
