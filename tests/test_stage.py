"""Markers and provenance: done means done from the same inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecellm.config.schema import MadeUp, Run
from ecellm.provenance import masked, read_run_json, write_run_json
from ecellm.stage import clear, fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


@dataclass(frozen=True)
class Pair:
    a: int
    b: str


def test_a_fingerprint_knows_values_not_order() -> None:
    assert fingerprint({"a": 1, "b": 2}, {3, 1}) == fingerprint({"b": 2, "a": 1}, {1, 3})
    assert fingerprint(MadeUp(products=300)) != fingerprint(MadeUp(products=301))
    assert fingerprint(Pair(1, "x")) == fingerprint({"a": 1, "b": "x"})
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert len(fingerprint("é")) == 64
    with pytest.raises(TypeError, match="no canonical form"):
        fingerprint(object())


def test_only_the_same_inputs_are_complete(storage: Storage) -> None:
    assert not is_complete(storage, "rows", "f1")
    publish(storage, "rows", "f1", n=3)
    assert is_complete(storage, "rows", "f1")
    assert not is_complete(storage, "rows", "f2")
    assert marker(storage, "rows") == {"fingerprint": "f1", "n": 3}


def test_a_marker_that_cannot_be_read_is_none(storage: Storage) -> None:
    storage.write("rows/COMPLETE", b"{half")
    assert marker(storage, "rows") is None
    assert not is_complete(storage, "rows", "f1")


def test_clear_takes_the_folder_and_nothing_else(storage: Storage) -> None:
    publish(storage, "rows", "f1")
    storage.write("rows/a", b"1")
    storage.write("rows2/a", b"1")
    clear(storage, "rows")
    assert [key for key, _ in storage.list()] == ["rows2/a"]


def test_run_json_gathers_the_facts_of_all_stages(storage: Storage) -> None:
    run = Run.model_validate({"name": "x", "out": "o", "seed": 7, "model": {"base": "tiny"}})
    write_run_json(storage, run, data_fingerprint="d")
    write_run_json(storage, run, steps=3)
    said = read_run_json(storage)
    assert (said["data_fingerprint"], said["steps"], said["seed"]) == ("d", 3, 7)
    assert said["run"]["model"]["base"] == "tiny"
    assert "python" in said["versions"]


def test_secrets_in_addresses_are_masked() -> None:
    text = json.dumps({"a": "http://me:secret@host/x", "b": "s3://bucket/x", "c": "me@host"})
    assert masked(text) == text.replace("me:secret@", "***@")
    assert masked('"http://me:p@ss@host/x?y"') == '"http://***@host/x?y"'
    signed = '{"url": "https://host/v1?api-key=SECRET&v=2#top", "other": "a?b=c"}'
    assert masked(signed) == '{"url": "https://host/v1?api-key=***&v=***#top", "other": "a?b=c"}'
