"""What an export holds in memory, and how often it reads."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ecellm.checkpoint import export as module
from ecellm.checkpoint.layout import KINDS, Manifest, Parameter, Position, RankFile, Slice, step_folder
from ecellm.checkpoint.published import Broken
from ecellm.checkpoint.restore import read_manifest
from ecellm.checkpoint.save import Head, save
from ecellm.checkpoint.slices import SliceReader
from ecellm.config.schema import Storage as Settings
from ecellm.records import World
from ecellm.storage.local import LocalStorage

LAYERS, NUMEL, BLOCK = 6, 1 << 20, 16 << 20


class Watched(SliceReader):
    """Notes what is held each time that it is read from."""

    saved: list[weakref.ref[torch.Tensor]] = []  # noqa: RUF012
    alive: list[int] = []  # noqa: RUF012
    blocks: list[int] = []  # noqa: RUF012
    reads: list[tuple[str, int]] = []  # noqa: RUF012

    def __call__(self, name: str, kind: str, start: int, length: int) -> torch.Tensor:
        self.alive.append(sum(tensor() is not None for tensor in self.saved))
        values = super().__call__(name, kind, start, length)
        self.blocks.append(sum(len(block) for _, block in self._newest.values()))
        return values

    def _keep(self, part: RankFile, number: int, data: bytes) -> None:
        self.reads.append((part.name, number))
        super()._keep(part, number, data)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    save_file = module.save_file

    def saving(made: dict[str, torch.Tensor], *words: Any, **named: Any) -> None:
        Watched.saved += [weakref.ref(tensor) for tensor in made.values()]
        save_file(made, *words, **named)

    for notes in (Watched.saved, Watched.alive, Watched.blocks, Watched.reads):
        notes.clear()  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "SliceReader", Watched)
    monkeypatch.setattr(module, "save_file", saving)
    return Watched


def by_two_ranks(storage: LocalStorage, dtype: str) -> Manifest:
    """A checkpoint of `LAYERS` parameters, half of each in each of two files of several blocks."""
    names = [f"layer.{number}" for number in range(LAYERS)]
    head = Head(
        identity="same", attempt=1, position=Position(fingerprint="f", seed=1, samples=8, batch_size=8), dtype=dtype,
        parameters=tuple(Parameter(name=name, shape=(2, NUMEL // 2)) for name in names), tied={}, lora=None,
    )  # fmt: skip

    def slices(rank: int) -> list[Slice]:
        half = NUMEL // 2
        return [
            Slice(name, kind, rank * half, NUMEL, torch.full((half,), place + rank / 2))
            for place, name in enumerate(names) for kind in KINDS
        ]  # fmt: skip

    # The second rank first; the first one hears of its part.
    from ecellm.checkpoint.save import _write_part

    other = _write_part(storage, step_folder(1), 1, slices(1), World(rank=1, size=2))
    heard = iter([lambda mine: [mine, other], lambda mine: [mine, None]])
    save(
        storage, head, step=1, slices=slices(0), side={}, world=World(rank=0, size=2),
        gather=lambda value: next(heard)(value),
    )  # fmt: skip
    return read_manifest(storage, step_folder(1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_file_at_a_time_and_one_block(tmp_path: Path, watched: type[Watched], dtype: str) -> None:
    manifest = by_two_ranks(LocalStorage(str(tmp_path / "out")), dtype)
    width = getattr(torch, dtype).itemsize
    module.export(
        str(tmp_path / "out" / step_folder(1)), str(tmp_path / "model"), Settings(), shard_bytes=2 * NUMEL * width
    )
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(files) == LAYERS // 2
    assert set(watched.alive) == {0}  # nothing of the file before is left when the next one is filled
    assert max(watched.blocks) <= BLOCK
    blocks = sum(len(part.blocks) for part in manifest.parts)
    assert blocks >= 6
    # Each block once, and where two output files meet, one block of each rank's file again.
    assert len(watched.reads) <= blocks + len(manifest.parts) * (len(files) - 1) + len(manifest.parts)
    whole = {name: value for file in files for name, value in load_file(file).items()}
    for place in range(LAYERS):
        value = whole[f"layer.{place}"]
        assert value.dtype == getattr(torch, dtype)
        assert value.shape == (2, NUMEL // 2)
        assert torch.equal(value[0], torch.full_like(value[0], place))
        assert torch.equal(value[1], torch.full_like(value[1], place + 0.5))


def test_a_checkpoint_with_a_hole_is_not_exported(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path / "out"))
    manifest = by_two_ranks(storage, "float32")
    holed = manifest.model_copy(update={"parts": manifest.parts[:1]})
    read = SliceReader(storage, step_folder(1), holed, cache_bytes=0)
    with pytest.raises(Broken, match="does not hold all"):
        module.filled(holed, read, holed.parameters, torch.float32)
