"""Token shards in storage, and all samples of a split as flat arrays in memory. It prepares nothing.

The one decision: a split is two flat arrays (tokens and offsets), so sample i costs two slices at any i, and workers
on one machine that share a `cache` folder share one copy of them in memory. What lies there is believed by its
fingerprint, which each process works out once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecellm.errors import DataError
from ecellm.stage import marker
from ecellm.storage.base import Storage, join
from ecellm.storage.local import told

FOLDER = "tokens"
Ids = npt.NDArray[np.int32]

SHARD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.int32()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("answer_ids", pa.list_(pa.int32())),
    ]
)
"""One row a sample. `task` is a place in `config.schema.TASK_IDS`; `answer_ids` end with the end token."""
INDEX_SCHEMA = pa.schema(
    [("id", pa.string()), ("task", pa.int32()), ("prompt_length", pa.int32()), ("answer_length", pa.int32())]
)
"""The length index: the same samples in the same order, without their tokens."""


@dataclass(frozen=True, slots=True)
class TokenSet:
    """All samples of one split; sample numbers count from 0 in shard order."""

    n: int
    fingerprint: str
    """sha256 over the samples' tokens and ids: what the order of samples is keyed by."""
    prompt_lengths: Ids  # [n]
    answer_lengths: Ids  # [n], with the end token
    tasks: Ids  # [n], places in TASK_IDS
    ids: tuple[str, ...]  # [n], row ids
    tokens: Ids  # [all tokens], prompt then answer of each sample
    offsets: npt.NDArray[np.int64]  # [n + 1], where each sample starts in `tokens`

    def sample(self, i: int) -> tuple[Ids, Ids]:
        """Prompt ids and answer ids of sample `i`."""
        start, end = int(self.offsets[i]), int(self.offsets[i + 1])
        middle = start + int(self.prompt_lengths[i])
        return self.tokens[start:middle], self.tokens[middle:end]


def shard_key(split: str, shard: int) -> str:
    """Key of a shard under OUT."""
    return f"{FOLDER}/{split}/part-{shard:05d}.parquet"


def index_key(split: str) -> str:
    """Key of a split's length index under OUT."""
    return f"{FOLDER}/{split}/index.parquet"


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet, the same bytes for the same rows."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=False)
    return sink.getvalue()


def content_fingerprint(ids: pa.ChunkedArray, prompts: Ids, answers: Ids, tokens: Ids) -> str:
    """sha256 over what a split holds, independent of how it was cut into shards."""
    digest = hashlib.sha256("\0".join(ids.to_pylist()).encode())
    for array in (prompts, answers, tokens):
        digest.update(np.ascontiguousarray(array, dtype="<i4").data)  # no copy of an array that is mapped
    return digest.hexdigest()


def load_tokens(storage: Storage, split: str, cache: str = "") -> TokenSet:
    """Read a prepared split.

    Args:
        storage: of OUT.
        split: `train` or `val`.
        cache: local folder for the flat arrays, mapped from there by every process of the machine; "": in memory.

    Raises:
        DataError: not prepared, or a shard is missing, cut short or changed.
        StorageError: the storage cannot be read.
    """
    facts = split_facts(storage, split)
    index = _table(storage, index_key(split), facts["index_sha256"])
    prompts, answers, tasks = (_int32(index[name]) for name in ("prompt_length", "answer_length", "task"))
    offsets = np.concatenate([[0], np.cumsum(prompts.astype(np.int64) + answers)]).astype(np.int64)
    kept = os.path.join(cache, f"{split}-{facts['fingerprint']}.npy") if cache else ""

    def fingerprint(tokens: Ids) -> str:
        return content_fingerprint(index["id"], prompts, answers, tokens)

    tokens = _kept(kept) if kept else None
    if tokens is None or len(tokens) != offsets[-1] or fingerprint(tokens) != facts["fingerprint"]:
        tokens = _read_tokens(storage, split, facts["shards"])
        found = fingerprint(tokens)
        if len(tokens) != offsets[-1] or found != facts["fingerprint"]:
            raise _broken(join(storage.root, FOLDER, split), f"fingerprint {found}", facts["fingerprint"])
        if kept:
            _keep(tokens, kept)
            tokens = _mapped(kept)
    return TokenSet(
        n=len(index), fingerprint=facts["fingerprint"], prompt_lengths=prompts, answer_lengths=answers, tasks=tasks,
        ids=tuple(index["id"].to_pylist()), tokens=tokens, offsets=offsets,
    )  # fmt: skip


def split_facts(storage: Storage, split: str) -> dict[str, Any]:
    """What the marker says of a split: rows, fingerprint, shards with sha256, tokens. Raises DataError."""
    found = marker(storage, FOLDER)
    if found is None:
        raise DataError(
            f"{join(storage.root, FOLDER)} holds no complete token shards",
            expected="a COMPLETE marker, written last by prepare",
            mend="run: ecellm prepare RUN.toml",
        )
    facts: dict[str, Any] = found["splits"][split]
    return facts


def _read_tokens(storage: Storage, split: str, shards: list[dict[str, Any]]) -> Ids:
    parts = [np.zeros(0, np.int32)]
    for number, facts in enumerate(shards):
        table = _table(storage, shard_key(split, number), facts["sha256"]).combine_chunks()
        if len(table):
            parts.append(interleave(table["prompt_ids"], table["answer_ids"]))
    return np.concatenate(parts)


def interleave(prompts: pa.ChunkedArray, answers: pa.ChunkedArray) -> Ids:
    """Prompt and answer of each row one after the other, all rows together: int32 [tokens]."""
    pairs = zip(prompts.to_numpy(), answers.to_numpy(), strict=True)
    flat: Ids = np.concatenate([part for pair in pairs for part in pair]).astype(np.int32)
    return flat


def _int32(column: pa.ChunkedArray) -> Ids:
    values: Ids = column.to_numpy().astype(np.int32)
    return values


def _table(storage: Storage, key: str, sha256: str) -> pa.Table:
    try:
        data = storage.read(key)
    except FileNotFoundError as error:
        raise _broken(join(storage.root, key), "no file", "a shard that the marker lists") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise _broken(join(storage.root, key), f"{len(data)} bytes with sha256 {found}", f"sha256 {sha256}")
    return pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)


def _broken(place: str, found: str, expected: str) -> DataError:
    return DataError(
        f"{place} is not what prepare wrote", found=found, expected=expected,
        mend="delete the tokens folder and run: ecellm prepare RUN.toml",
    )  # fmt: skip


def _kept(path: str) -> Ids | None:
    """A kept array, whatever it holds; None where there is none that can be read."""
    try:
        tokens = _mapped(path)
    except (OSError, ValueError):  # no file, an empty one, one cut short or of something else
        return None
    return tokens if tokens.ndim == 1 and tokens.dtype == np.int32 else None


def _mapped(path: str) -> Ids:
    tokens: Ids = np.lib.format.open_memmap(path, mode="r")
    return tokens


def _keep(tokens: Ids, path: str) -> None:
    """Write an array whole or not at all; synced before the rename, which a crash may keep without the bytes."""
    with told("write", path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, tokens)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
