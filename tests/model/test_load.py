"""Folders that are not whole are refused with the mend; attention is chosen with a reason."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, T5Config, T5ForConditionalGeneration

from ecellm.config.schema import Model
from ecellm.errors import CheckpointError, ConfigError
from ecellm.model.load import load_config, load_model, load_tokenizer, pick_attention, pick_dtype


def load(folder: Path, **settings: object) -> object:
    return load_model(
        str(folder), Model.model_validate({"base": "x", **settings}), dtype=torch.float32, attention="flash_attention_2"
    )


def test_a_folder_without_tokenizer_or_config_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lacks a tokenizer(.*\n)*.*copy the tokenizer files"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(CheckpointError, match="lacks a config"):
        load_config(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json cannot be loaded"):
        load_config(str(tmp_path))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(
        CheckpointError, match=r"holds no safetensors(.*\n)*.*pytorch_model.bin(.*\n)*.*save_pretrained"
    ):
        load(tmp_path)


def test_a_truncated_weight_file_is_refused(tmp_path: Path) -> None:
    LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match="its weights cannot be loaded"):
        load(tmp_path)


def test_t5_loads_as_encoder_decoder_without_flash_attention(tmp_path: Path) -> None:
    config = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    model = load(tmp_path, gradient_checkpointing=True)
    assert isinstance(model, T5ForConditionalGeneration)
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert model.is_activation_checkpointing
    ids = torch.tensor([[3, 4, 1]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.shared.weight.grad.abs().sum() > 0


def test_attention_and_dtype_are_chosen_with_a_reason() -> None:
    auto = Model(base="x")
    assert pick_attention(auto, "cpu") == ("sdpa", "flash attention needs a GPU")
    assert pick_attention(Model(base="x", dtype="float32"), "cuda")[1] == "flash attention does not work in float32"
    assert pick_attention(Model(base="x", attention="eager"), "cuda")[0] == "eager"
    with pytest.raises(ConfigError, match="flash_attention_2 cannot run here"):
        pick_attention(Model(base="x", attention="flash_attention_2"), "cpu")
    assert pick_dtype(auto, "cpu") == "float32"
    assert pick_dtype(Model(base="x", dtype="bfloat16"), "cpu") == "bfloat16"
