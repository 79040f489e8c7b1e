"""Adapters: only they are trained, and the exported model is the base with them merged in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from ecellm.checkpoint.adapter import export_adapter
from ecellm.checkpoint.export import export
from ecellm.checkpoint.layout import Position, step_folder
from ecellm.checkpoint.restore import read_newest
from ecellm.checkpoint.save import Head, save
from ecellm.cli.app import app as typer_app
from ecellm.config.schema import Lora, Model, Run
from ecellm.config.schema import Storage as Settings
from ecellm.errors import CheckpointError, ConfigError
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train.engine import Engine
from ecellm.train.keeping import side_files
from ecellm.train.lora import adapter_facts, add_adapters
from ecellm.train.plain import PlainEngine
from tests.train.ranks import run_ranks
from tests.train.toys import ToyTokens, toy_batches, toy_engine, toy_layout, toy_llama, toy_run, toy_t5

ALONE = World(rank=0, size=1)


def test_merged_export_gives_the_logits_of_the_adapted_model(tmp_path: Path) -> None:
    base: Any = toy_llama()
    base.save_pretrained(tmp_path / "base")
    lora = Lora(rank=4, alpha=8, dropout=0.0)
    model: Any = add_adapters(base, lora)
    engine = PlainEngine(model, toy_run(), torch.device("cpu"))
    for _ in range(3):
        engine.forward_backward(toy_batches(ToyTokens(8), np.arange(8), ALONE, toy_layout(pack_tokens=0, micro=8)))
        engine.step(1e-2)
    parameters, tied = engine.parameters()
    assert parameters
    assert all("lora_" in parameter.name and "lm_head" not in parameter.name for parameter in parameters)
    storage = LocalStorage(str(tmp_path / "out"))
    head = Head(
        identity="same", attempt=1, position=Position(fingerprint="f", seed=1, samples=8, batch_size=8),
        dtype="float32", parameters=parameters, tied=tied,
        lora=adapter_facts(model, lora) | {"base": str(tmp_path / "base")},
    )  # fmt: skip
    save(
        storage, head, step=3, slices=engine.local_slices(), world=ALONE, gather=lambda value: [value],
        side=side_files(str(tmp_path / "base"), model.config, storage, "float32"),
    )  # fmt: skip
    export(str(tmp_path / "out" / step_folder(3)), str(tmp_path / "model"), Settings())
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    untouched: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    ids = torch.arange(3, 15).view(2, 6)
    with torch.no_grad():
        wanted = model.eval()(input_ids=ids).logits
        assert torch.allclose(merged.eval()(input_ids=ids).logits, wanted, atol=1e-5)
        assert not torch.allclose(untouched.eval()(input_ids=ids).logits, wanted, atol=1e-3)
    export_adapter(
        str(tmp_path / "out" / step_folder(3)), str(tmp_path / "adapter"), Settings(), str(tmp_path / "base")
    )
    apart: Any = PeftModel.from_pretrained(untouched, str(tmp_path / "adapter"))
    with torch.no_grad():
        assert torch.allclose(apart.eval()(input_ids=ids).logits, wanted, atol=1e-5)
    assert not (tmp_path / "adapter" / "config.json").exists()


SAVED, END = 2, 4


def adapted(base: str) -> Run:
    """A run with adapters, blocks that are computed again, and an output head in pieces."""
    lora = Lora(rank=4, alpha=8, dropout=0.0)
    return toy_run(model=Model(base=base, lora=lora, gradient_checkpointing=True))


def train(engine: Engine, first: int, last: int) -> list[float]:
    """Loss sums of steps `first` to `last`."""
    tokens, losses = ToyTokens(END * 8), []
    for step in range(first, last):
        numbers = np.arange(step * 8, (step + 1) * 8)
        layout = toy_layout(micro=1, pack_tokens=20, piece_tokens=5)
        found = engine.forward_backward(toy_batches(tokens, numbers, engine.world, layout))
        losses.append(engine.sums([float(sum(found))])[0])
        engine.step(1e-2)
    return losses


def save_and_go_on(world: World, out: str, base: str) -> list[float]:
    storage, run = LocalStorage(out), adapted(base)
    engine: Any = toy_engine("zero3", run, world, tied=False)
    losses = train(engine, 0, SAVED)
    parameters, tied = engine.parameters()
    head = Head(
        identity="same", attempt=1, position=Position(fingerprint="f", seed=1, samples=8, batch_size=8),
        dtype="float32", parameters=parameters, tied=tied,
        lora=adapter_facts(engine.model(), run.model.lora) | {"base": base},
    )  # fmt: skip
    side = side_files(base, engine.model().config, storage, "float32") if world.rank == 0 else {}
    save(storage, head, step=SAVED, slices=engine.local_slices(), side=side, world=world, gather=engine.gather)
    return losses + train(engine, SAVED, END)


def load_and_go_on(world: World, out: str, base: str) -> list[float]:
    engine = toy_engine("zero3", adapted(base), world, tied=False)
    found = read_newest(
        LocalStorage(out), list(engine.owned()), fits=lambda manifest: None, world=world, gather=engine.gather,
        say=print,
    )  # fmt: skip
    assert found is not None
    engine.load_slices(lambda name, kind, start, length: found[1][name, kind], SAVED)
    return train(engine, SAVED, END)


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_adapters_on_zero3_ranks_at_any_world_size(tmp_path: Path) -> None:
    out, base = str(tmp_path / "out"), str(tmp_path / "base")
    toy_llama(tied=False).save_pretrained(base)
    plain: Any = toy_engine("plain", adapted(base), ALONE, tied=False)
    wanted = train(plain, 0, SAVED)
    model = copy.deepcopy(plain.model())
    wanted += train(plain, SAVED, END)
    assert run_ranks(2, save_and_go_on, out, base)[1] == pytest.approx(wanted, rel=1e-5)
    assert run_ranks(3, load_and_go_on, out, base)[2] == pytest.approx(wanted[SAVED:], rel=1e-5)
    assert CliRunner().invoke(typer_app, ["export", f"{out}/{step_folder(SAVED)}", str(tmp_path / "m")]).exit_code == 0
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    ids = torch.arange(3, 15).view(2, 6)
    with torch.no_grad():
        assert torch.allclose(merged.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits, atol=1e-5)


def test_a_whole_model_has_no_adapters_to_export(tmp_path: Path) -> None:
    storage, engine = LocalStorage(str(tmp_path / "out")), PlainEngine(toy_llama(), toy_run(), torch.device("cpu"))
    parameters, tied = engine.parameters()
    head = Head(
        identity="same", attempt=1, position=Position(fingerprint="f", seed=1, samples=8, batch_size=8),
        dtype="float32", parameters=parameters, tied=tied, lora=None,
    )  # fmt: skip
    save(storage, head, step=1, slices=engine.local_slices(), world=ALONE, gather=lambda value: [value], side={})
    with pytest.raises(CheckpointError, match="holds no adapters"):
        export_adapter(f"{storage.root}/{step_folder(1)}", str(tmp_path / "adapter"), Settings(), "")


def test_t5_has_its_own_table() -> None:
    names = {
        name.split(".lora_")[0].rpartition(".")[2] for name, _ in add_adapters(toy_t5(), Lora()).named_parameters()
    }
    assert {"q", "k", "v", "o", "wo"} <= names


def test_targets_that_the_model_has_not_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to adapt"):
        add_adapters(toy_llama(), Lora(targets=("Wqkv",)))
