"""What only a GPU shows: flash attention over packed rows, bfloat16, NCCL. To be run first on any machine with one.

`pytest -m gpu tests/gpu`; everywhere else each test skips with its reason.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecellm.data.prepare import prepare
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train.checks import leak
from ecellm.train.launch import train
from ecellm.train.plain import PlainEngine
from tests.data.made import make_row, make_run, put_rows
from tests.train.toys import VOCABULARY, ToyTokens, toy_batches, toy_layout, toy_llama, toy_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]
INSTALLED = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface", "sdpa_varlen": "torch"}


def engine_of(attention: str, *, bf16: bool) -> PlainEngine:
    from ecellm.model.attention import register

    register()
    model: Any = toy_llama()
    model.set_attn_implementation(attention)
    return PlainEngine(model, toy_run(), torch.device("cuda"), autocast=bf16)


def losses(engine: PlainEngine, pack_tokens: int) -> list[float]:
    tokens, alone, found = ToyTokens(40), World(rank=0, size=1), []
    for step in range(5):
        numbers = np.arange(step * 8, step * 8 + 8)
        layout = toy_layout(pack_tokens=pack_tokens, micro=8)
        found.append(float(sum(engine.forward_backward(toy_batches(tokens, numbers, alone, layout)))))
        engine.step(1e-3)
    return found


@pytest.mark.parametrize("attention", list(INSTALLED))
def test_packed_samples_stay_apart(attention: str) -> None:
    if find_spec(INSTALLED[attention]) is None:
        pytest.skip(f"{INSTALLED[attention]} is not installed")
    assert leak(engine_of(attention, bf16=attention.startswith("flash")), VOCABULARY, 0) == ""


def test_bfloat16_packed_follows_float32_padded() -> None:
    whole = losses(engine_of("sdpa", bf16=False), pack_tokens=0)
    packed = losses(engine_of("sdpa_varlen", bf16=True), pack_tokens=40)
    assert packed == pytest.approx(whole, rel=2e-2)
    assert losses(engine_of("sdpa_varlen", bf16=False), pack_tokens=40) == pytest.approx(whole, rel=1e-4)


@pytest.mark.timeout(600)
def test_a_run_over_nccl_learns_resumes_and_exports(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    def run_for(max_steps: int) -> Any:
        settings = {"epochs": 10, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3, "max_steps": max_steps}
        cluster = {"workers": torch.cuda.device_count(), "gpus_per_worker": 1}
        return make_run(str(tmp_path), train=settings, checkpoint={"every": 5}, cluster=cluster)

    storage = LocalStorage(str(tmp_path))
    put_rows(storage, [make_row(i) for i in range(32)] + [make_row(i, "val") for i in range(6)])
    prepare(run_for(20))
    train(run_for(20))
    lines = [json.loads(line) for line in storage.read("metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["mfu"] > 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert next(model.parameters()).dtype == torch.bfloat16
