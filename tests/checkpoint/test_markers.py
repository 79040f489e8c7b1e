"""Marker and manifest that come otherwise than they were written; a fault that only one rank's reading has."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch

from ecellm.checkpoint import restore
from ecellm.checkpoint.layout import COMPLETE, Manifest, of_attempt, rank_file, step_folder
from ecellm.checkpoint.published import READS, Broken
from ecellm.checkpoint.restore import read_manifest, steps
from ecellm.config.schema import Checkpoint
from ecellm.errors import StorageError
from ecellm.records import World
from ecellm.storage.base import Storage
from ecellm.storage.local import LocalStorage
from ecellm.train.keeping import Keeper, identity, position_of
from ecellm.train.plain import PlainEngine
from tests.checkpoint.test_checkpoints import put
from tests.train.toys import ToyTokens, toy_llama, toy_run


class Misread(LocalStorage):
    """Changes byte `at` of the first `flips` reads of what ends with `name`; cannot sweep where `denied`."""

    name, at, flips, denied, swept = COMPLETE, 0, 0, "", 0

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(key, start, length)
        if self.flips and key.startswith("checkpoints") and key.endswith(self.name):
            self.flips -= 1
            data = data[: self.at] + bytes([data[self.at] ^ 1]) + data[self.at + 1 :]
        return data

    def sweep(self, prefix: str) -> int:
        self.swept += 1
        if self.denied == "gone":
            raise FileNotFoundError(2, "no such object", prefix)
        if self.denied:
            raise StorageError(f"{prefix}: AccessDenied")
        return super().sweep(prefix)


@pytest.mark.parametrize(
    ("name", "at"),
    [(COMPLETE, 0), (COMPLETE, -3), (COMPLETE, 30), ("manifest.json", 0), ("manifest.json", 100)],
)
def test_marker_and_manifest_are_read_again(tmp_path: Path, name: str, at: int) -> None:
    """Byte 30 of the marker is the name of the manifest, so that it is missing; byte -3 is of its digest."""
    storage = Misread(str(tmp_path / "out"))
    put(storage, 4, toy_llama(), tmp_path / "base")
    storage.name, storage.at, storage.flips = name, at, READS - 1
    assert read_manifest(storage, step_folder(4)).step == 4
    assert not storage.flips
    storage.flips = READS
    with pytest.raises(Broken):
        read_manifest(storage, step_folder(4))


def test_a_late_attempt_that_misreads_the_marker_goes_on(tmp_path: Path) -> None:
    storage = Misread(str(tmp_path / "out"))
    put(storage, 4, toy_llama(), tmp_path / "base", attempt=1)
    before = storage.read(f"{step_folder(4)}/manifest.json")
    for storage.name in (COMPLETE, of_attempt(1, "manifest.json")):
        storage.flips = 1
        put(storage, 4, toy_llama(), tmp_path / "base", attempt=2)
        assert not storage.flips
        assert storage.read(f"{step_folder(4)}/manifest.json") == before


def resumed(storages: list[Misread], said: list[str]) -> list[int]:
    """The step that each of two ranks, each with a storage of its own, goes on from."""
    meeting, told, found = Barrier(2, timeout=60), dict[int, Any](), dict[int, int]()

    def rank(number: int) -> None:
        def gather(value: Any) -> list[Any]:
            told[number] = value
            meeting.wait()
            both = [told[0], told[1]]
            meeting.wait()
            return both

        engine = PlainEngine(toy_llama(), toy_run(), torch.device("cpu"))
        engine.world, engine.gather = World(rank=number, size=2), gather  # type: ignore[method-assign]
        found[number] = keeper(storages[number], said).resume(engine)

    threads = [Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[0], found[1]]


def keeper(storage: Storage, said: list[str]) -> Keeper:
    run = toy_run("unused", checkpoint=Checkpoint(every=1))
    return Keeper(
        run=run, storage=storage, position=position_of(run, ToyTokens(8)), attempt=2, dtype="float32",
        side={"config.json": b"{}"}, say=said.append,
    )  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> str:
    """A run with whole checkpoints of steps 4 and 8."""
    storage, run = LocalStorage(str(tmp_path / "out")), toy_run("unused")
    mine = identity(run, position_of(run, ToyTokens(8)))
    for step in (4, 8):
        put(storage, step, toy_llama(), tmp_path / "base", identity=mine)
    return storage.root


@pytest.mark.parametrize("name", [COMPLETE, "-manifest.json", ".safetensors", "model/config.json"])
def test_what_only_another_rank_misreads_is_passed_over_and_stays(out: str, name: str) -> None:
    """But what the first rank misreads every time counts as broken: it is the one that has config.json to read."""
    storages, said = [Misread(out), Misread(out)], list[str]()
    guilty = 0 if name.startswith("model/") else 1
    storages[guilty].name, storages[guilty].flips = name, READS  # step 8 is read first, and takes them all
    assert resumed(storages, said) == [4, 4]
    passed = [line for line in said if "passed over" in line]
    assert len(passed) == 1
    assert ("it stays" in passed[0]) == (guilty == 1)
    assert steps(storages[0])[0] == ([4, 8] if guilty else [4])


def test_what_all_ranks_find_broken_loses_its_marker(out: str) -> None:
    storage, said = Misread(out), list[str]()
    key = f"{step_folder(8)}/{rank_file(1, 0, 1)}"
    storage.write(key, storage.read(key)[:-4] + b"????")
    assert resumed([storage, Misread(out)], said) == [4, 4]
    assert steps(storage)[0] == [4]
    assert not any("it stays" in line for line in said)


@pytest.mark.parametrize("place", ["range", "missing", "side", "nothing"])
def test_the_first_rank_looks_where_another_found_a_fault(out: str, place: str) -> None:
    storage, folder = LocalStorage(out), step_folder(8)
    manifest: Manifest = read_manifest(storage, folder)
    side, name = manifest.side[0].name, "model.norm.weight"
    where: restore.Place = {"side": side, "nothing": None}.get(place, (name, "param", 0, 32))
    assert not restore._confirmed(storage, folder, manifest, where)
    key = f"{folder}/{side if place == 'side' else manifest.parts[0].name}"
    if place == "missing":
        storage.delete(key)
    elif place != "nothing":
        storage.write(key, storage.read(key)[:-1] + b"?")
    assert restore._confirmed(storage, folder, manifest, where) == (place != "nothing")


@pytest.mark.parametrize("denied", ["", "denied", "gone"])
def test_sweeping_ends_no_run(out: str, denied: str) -> None:
    storage, said = Misread(out), list[str]()
    storage.denied = denied
    engine = PlainEngine(toy_llama(), toy_run(), torch.device("cpu"))
    assert keeper(storage, said).resume(engine) == 8
    assert storage.swept == (1 if denied else 3)
    assert sum("could not be removed, training goes on" in line for line in said) == bool(denied)


def test_what_a_dead_export_left_is_swept(out: str) -> None:
    storage = LocalStorage(out)
    for folder in ("checkpoints", "model", "adapter"):
        path = Path(out, folder, ".ecellm-tmp-0")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    storage.write("model/config.json", b"{}")
    keeper(storage, []).resume(PlainEngine(toy_llama(), toy_run(), torch.device("cpu")))
    assert not list(Path(out).rglob(".ecellm-tmp-*"))
    assert storage.read("model/config.json") == b"{}"
