"""Save, verify, pass over, read ranges, export: on a folder and on S3, without ranks."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from ecellm.checkpoint import restore
from ecellm.checkpoint.export import export
from ecellm.checkpoint.layout import Parameter, Position, Slice, of_attempt, rank_file, step_folder
from ecellm.checkpoint.restore import read_manifest, read_newest, steps, verify
from ecellm.checkpoint.save import Head, LostRace, save
from ecellm.checkpoint.slices import SliceReader
from ecellm.config.schema import Storage as Settings
from ecellm.errors import CheckpointError
from ecellm.records import World
from ecellm.storage.base import Storage, join
from ecellm.storage.local import LocalStorage
from ecellm.storage.open import open_storage
from ecellm.train.keeping import side_files
from ecellm.train.plain import PlainEngine
from tests.train.toys import toy_llama, toy_run, toy_t5

ALONE = World(rank=0, size=1)


def put(
    storage: Storage, step: int, module: Any, folder: Path, attempt: int = 1, identity: str = "same"
) -> None:  # fmt: skip
    """A checkpoint of a model, as a plain run saves it."""
    engine = PlainEngine(module, toy_run(), torch.device("cpu"))
    parameters, tied = engine.parameters()
    head = Head(
        identity=identity, attempt=attempt, position=Position(fingerprint="f", seed=1, samples=8, batch_size=8),
        dtype="float32", parameters=parameters, tied=tied, lora=None,
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    side = side_files(str(folder), module.config, storage, "float32")
    save(
        storage, head, step=step, slices=engine.local_slices(), side=side, world=ALONE, gather=lambda value: [value]
    )  # fmt: skip


def find(storage: Storage, said: list[str]) -> int | None:
    owned = [("model.embed_tokens.weight", 5, 40), ("model.norm.weight", 0, 32)]
    found = read_newest(
        storage, owned, fits=lambda manifest: None, world=ALONE, gather=lambda value: [value], say=said.append
    )  # fmt: skip
    return found[0].step if found else None


def test_a_half_written_newest_is_no_checkpoint(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path / "out"))
    put(storage, 4, toy_llama(), tmp_path / "base")
    put(storage, 8, toy_llama(), tmp_path / "base")
    storage.delete(f"{step_folder(8)}/COMPLETE")
    said: list[str] = []
    assert find(storage, said) == 4
    assert steps(storage) == ([4], [8])
    assert not said


@pytest.mark.parametrize("fault", ["cut", "flipped", "gone", "manifest"])
def test_a_broken_newest_is_passed_over_with_a_reason(tmp_path: Path, fault: str) -> None:
    storage = LocalStorage(str(tmp_path / "out"))
    put(storage, 4, toy_llama(), tmp_path / "base")
    put(storage, 8, toy_llama(), tmp_path / "base")
    key = f"{step_folder(8)}/" + (of_attempt(1, "manifest.json") if fault == "manifest" else rank_file(1, 0, 1))
    data = bytearray(storage.read(key))
    data[-1] ^= 1
    if fault == "gone":
        storage.delete(key)
    else:
        storage.write(key, bytes(data[:-8] if fault == "cut" else data))
    said: list[str] = []
    assert find(storage, said) == 4
    assert len(said) == 1
    assert "step 8 is passed over" in said[0]
    assert verify(storage, step_folder(8))
    assert not verify(storage, step_folder(4))


def test_two_attempts_cannot_both_publish(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path / "out"))
    put(storage, 4, toy_llama(), tmp_path / "base", attempt=2)
    before = {key: storage.read(key) for key, _ in storage.list(step_folder(4))}
    with pytest.raises(LostRace, match="another attempt"):
        put(storage, 4, toy_llama(), tmp_path / "base", attempt=1)
    with pytest.raises(LostRace, match="another attempt"):
        put(storage, 4, toy_llama(), tmp_path / "base", attempt=3, identity="another run")
    assert before.items() <= {key: storage.read(key) for key, _ in storage.list(step_folder(4))}.items()
    assert not verify(storage, step_folder(4))
    assert read_manifest(storage, step_folder(4)).attempt == 2


def test_a_late_marker_of_an_earlier_attempt_ends_no_run(tmp_path: Path) -> None:
    """It passed its fence, then was taken for dead; the step that it published is the same run's."""
    storage = LocalStorage(str(tmp_path / "out"))
    put(storage, 4, toy_llama(), tmp_path / "base", attempt=1)
    put(storage, 4, toy_llama(), tmp_path / "base", attempt=2)
    assert not verify(storage, step_folder(4))
    assert read_manifest(storage, step_folder(4)).attempt == 1


class Counting(LocalStorage):
    """Counts reads of weights, and changes a byte of the first `flips` reads of anything below `checkpoints`."""

    reads = flips = 0

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(key, start, length)
        self.reads += key.endswith(".safetensors")
        if self.flips and key.startswith("checkpoints"):
            self.flips -= 1
            return bytes([data[0] ^ 1]) + data[1:]
        return data


def test_each_block_is_read_once_at_another_world_size(tmp_path: Path) -> None:
    """Two ranks' files of three blocks each, read by one rank: a range of a parameter lies in both."""
    storage, meeting, told = Counting(str(tmp_path)), Barrier(2), dict[int, Any]()
    numel, names = 1 << 20, [f"layer.{number}" for number in range(8)]
    head = Head(
        identity="same", attempt=1, position=Position(fingerprint="f", seed=1, samples=8, batch_size=8),
        dtype="float32", parameters=tuple(Parameter(name=name, shape=(numel,)) for name in names),
        tied={}, lora=None,
    )  # fmt: skip

    def rank(number: int) -> None:
        def gather(value: Any) -> list[Any]:
            told[number] = value
            meeting.wait(60)
            both = [told[0], told[1]]
            meeting.wait(60)
            return both

        half, kinds = numel // 2, ("param", "exp_avg", "exp_avg_sq")
        slices = [Slice(name, kind, number * half, numel, torch.full((half,), float(number + place)))
                  for place, name in enumerate(names) for kind in kinds]  # fmt: skip
        save(storage, head, step=1, slices=slices, side={}, world=World(rank=number, size=2), gather=gather)

    threads = [Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.reads = 0
    manifest = read_manifest(storage, step_folder(1))
    read = SliceReader(storage, step_folder(1), manifest)
    for place, name in enumerate(names):
        for kind in ("param", "exp_avg", "exp_avg_sq"):
            values = read(name, kind, 0, numel)
            assert (values[0], values[-1]) == (place, place + 1)
    assert storage.reads == sum(len(part.blocks) for part in manifest.parts) > 4


def test_bytes_that_change_on_their_way_are_read_again(tmp_path: Path) -> None:
    storage = Counting(str(tmp_path / "out"))
    put(storage, 4, toy_llama(), tmp_path / "base")
    key = f"{step_folder(4)}/" + rank_file(1, 0, 1)
    file = read_manifest(storage, step_folder(4)).parts[0]
    storage.flips = 2
    assert not restore.fault(storage, step_folder(4), file)
    storage.flips = 3
    assert "another sha256" in restore.fault(storage, step_folder(4), file)
    assert storage.exists(key)


def test_any_range_can_be_read(tmp_path: Path) -> None:
    storage, module = LocalStorage(str(tmp_path / "out")), toy_llama()
    put(storage, 4, module, tmp_path / "base")
    read = SliceReader(storage, step_folder(4), read_manifest(storage, step_folder(4)))
    for name, parameter in module.named_parameters():
        flat, end = parameter.detach().flatten(), parameter.numel()
        for start, length in ((0, end), (3, end - 3), (end // 2, 1), (5, 0)):
            assert torch.equal(read(name, "param", start, length), flat[start : start + length])
    with pytest.raises(CheckpointError, match="does not hold all"):
        read("model.norm.weight", "param", 30, 5)


@pytest.mark.parametrize("kind", ["tied", "untied", "t5"])
@pytest.mark.parametrize("shard_bytes", [1 << 30, 20_000])
def test_an_exported_model_gives_the_same_logits(tmp_path: Path, kind: str, shard_bytes: int) -> None:
    storage = LocalStorage(str(tmp_path / "out"))
    module: Any = toy_t5() if kind == "t5" else toy_llama(tied=kind == "tied")
    put(storage, 4, module, tmp_path / "base")
    out = tmp_path / "model"
    export(join(storage.root, step_folder(4)), str(out), Settings(), shard_bytes=shard_bytes)
    again = (AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM).from_pretrained(out)
    assert again.dtype == torch.float32
    ids = torch.arange(3, 15).view(2, 6)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if kind == "t5" else {})
    with torch.no_grad():
        assert torch.equal(module.eval()(**inputs).logits, again.eval()(**inputs).logits)
    assert len(list(out.glob("*.safetensors"))) == (1 if shard_bytes > 20_000 else len(list(out.glob("model-*"))))


def test_an_export_of_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        export(str(tmp_path / "out" / step_folder(4)), str(tmp_path / "model"), Settings())


def test_s3_is_no_different(tmp_path: Path, s3: str) -> None:
    storage, module = open_storage(s3), toy_llama()
    put(storage, 4, module, tmp_path / "base")
    put(storage, 8, module, tmp_path / "base")
    key = f"{step_folder(8)}/{rank_file(1, 0, 1)}"
    storage.write(key, storage.read(key)[:-4])
    said: list[str] = []
    assert find(storage, said) == 4
    assert len(said) == 1
    export(join(storage.root, step_folder(4)), str(tmp_path / "model"), Settings())
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(again.model.norm.weight, module.model.norm.weight)  # type: ignore[union-attr]
