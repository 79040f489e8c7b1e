"""Adapters: only they are trained, and the exported model is the base with them merged in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ecellm.checkpoint.adapter import export_adapter
from ecellm.checkpoint.export import export
from ecellm.checkpoint.layout import Position, step_folder
from ecellm.checkpoint.save import Head, save
from ecellm.config.schema import Lora
from ecellm.config.schema import Storage as Settings
from ecellm.errors import CheckpointError, ConfigError
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train.keeping import side_files
from ecellm.train.lora import adapter_facts, add_adapters
from ecellm.train.plain import PlainEngine
from tests.train.toys import ToyTokens, toy_batches, toy_layout, toy_llama, toy_run, toy_t5

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
