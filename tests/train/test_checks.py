"""What the start-up checks see: packed samples that leak, heads that are not all, models that take no packed rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, PhiConfig, PhiForCausalLM
from transformers.models.gemma2 import Gemma2Config, Gemma2ForCausalLM

from ecellm.errors import ConfigError
from ecellm.model.attention import register
from ecellm.records import World
from ecellm.train.checks import check_model, leak
from ecellm.train.plain import PlainEngine
from tests.train.toys import VOCABULARY, toy_engine, toy_run

ALONE = World(rank=0, size=1)
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def engine_of(model: Any, attention: str) -> PlainEngine:
    register()
    model.set_attn_implementation(attention)
    return PlainEngine(model, toy_run(), torch.device("cpu"))


@pytest.mark.parametrize("attention", ["sdpa_varlen", "sdpa", "eager"])
def test_packed_samples_stay_apart(attention: str) -> None:
    assert leak(toy_engine("plain", toy_run(), ALONE, attention=attention), VOCABULARY, 0) == ""


def test_samples_that_see_each_other_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from ecellm.model import attention

    whole = attention.varlen_attention
    blind = lambda *args, **words: whole(*args, **{**words, "cu_seq_lens_q": None})  # noqa: E731
    monkeypatch.setattr(attention, "varlen_attention", blind)
    engine = toy_engine("plain", toy_run(), ALONE)
    with pytest.raises(ConfigError, match="do not stay apart") as caught:
        check_model(engine, packed=True, encoder_decoder=False, vocabulary=VOCABULARY, pad_id=0, say=print)
    assert "sample 1" in str(caught.value)
    assert "train.packing = false" in str(caught.value)
    check_model(engine, packed=False, encoder_decoder=False, vocabulary=VOCABULARY, pad_id=0, say=print)


def test_a_model_without_positions_takes_no_packed_rows() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    bloom = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=1, n_head=2))
    engine = PlainEngine(bloom, toy_run(), torch.device("cpu"))
    with pytest.raises(ConfigError, match="do not stay apart"):
        check_model(engine, packed=True, encoder_decoder=False, vocabulary=VOCABULARY, pad_id=0, say=print)


@pytest.mark.parametrize("kind", ["phi", "gemma"])
def test_the_head_is_all_of_these(kind: str) -> None:
    torch.manual_seed(0)
    model = PhiForCausalLM(PhiConfig(**SMALL)) if kind == "phi" else GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=8))
    said: list[str] = []
    engine = engine_of(model, "sdpa_varlen")
    check_model(engine, packed=True, encoder_decoder=False, vocabulary=VOCABULARY, pad_id=0, say=said.append)
    assert not said
    assert engine._loss.alone


def test_tied_t5_scales_before_its_head() -> None:
    said: list[str] = []
    engine = toy_engine("plain", toy_run(), ALONE, t5=True)
    check_model(engine, packed=False, encoder_decoder=True, vocabulary=VOCABULARY, pad_id=0, say=said.append)
    assert "own forward" in said[0]


def test_capped_logits_go_through_the_models_own_forward() -> None:
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.5, layer_types=None))
    said: list[str] = []
    engine = engine_of(model, "eager")
    check_model(engine, packed=True, encoder_decoder=False, vocabulary=VOCABULARY, pad_id=0, say=said.append)
    assert "own forward" in said[0]
    assert not engine._loss.alone
