"""The paper's kinds of base models, small and from random weights: trained, stopped, resumed, exported, read, asked.

Llama, Mistral with Mistral's own tokenizer (it comes in a wheel), Phi in its form inside transformers, Flan-T5's kind
of T5 with a T5 tokenizer.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from ecellm.checkpoint.layout import step_folder
from ecellm.config.schema import Model, Run
from ecellm.data.prepare import prepare
from ecellm.model.generate import Generator, Question
from ecellm.model.tiny import train_tokenizer
from ecellm.session import ray_session
from ecellm.storage.local import LocalStorage
from ecellm.train.launch import train
from tests.data.made import make_row, make_run, put_rows

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
DECODERS = ("llama", "mistral", "phi")
KINDS = (*DECODERS, "t5")
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One Ray for all of this file."""
    with ray_session(make_run("unused"), cpus=1):
        yield


def tokenizer_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> Any:
    """A real tokenizer where a wheel or the shared files have one."""
    if kind == "mistral":
        found = importlib.util.find_spec("mistral_common")
        if found is None or found.origin is None:
            pytest.skip("mistral-common, whose wheel carries Mistral's tokenizer, is not installed")
        shutil.copy(Path(found.origin).parent / "data" / "tokenizer.model.v1", folder / "tokenizer.model")
        (folder / "config.json").write_text('{"model_type": "mistral"}')
        return AutoTokenizer.from_pretrained(folder, add_bos_token=True)
    if kind == "t5":
        return AutoTokenizer.from_pretrained(request.getfixturevalue("shared") / "data/tiny_models/tiny-random-t5")
    texts = [row.instruction + row.input + row.output for row in map(make_row, range(40))]
    return train_tokenizer(texts, 400, "alpaca")


def base_model(kind: str, folder: Path, request: pytest.FixtureRequest) -> Path:
    """A Hugging Face folder of the kind, from random weights."""
    folder.mkdir()
    tokenizer = tokenizer_of(kind, folder, request)
    torch.manual_seed(0)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    model: Any
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SMALL, **ids, tie_word_embeddings=False))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**SMALL, **ids, sliding_window=None))
    elif kind == "phi":
        model = PhiForCausalLM(PhiConfig(**SMALL, **ids))
    else:
        model = T5ForConditionalGeneration(
            T5Config(
                d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
                tie_word_embeddings=False, dropout_rate=0.0, decoder_start_token_id=0, **ids,
            )
        )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made_run(kind: str, base: Path, out: Path) -> Run:
    run = make_run(
        str(out), cluster={"workers": 1}, checkpoint={"every": 3},
        train={"engine": "plain", "max_steps": 6, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3},
        prepare={"max_length": 400, "shard_rows": 64, "template": "mistral" if kind == "mistral" else "alpaca"},
    )  # fmt: skip
    return run.model_copy(update={"model": Model(base=str(base))})


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_way(kind: str, session: None, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base = base_model(kind, tmp_path / "base", request)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    put_rows(LocalStorage(str(whole)), [make_row(i) for i in range(24)] + [make_row(i, "val") for i in range(4)])
    prepare(made_run(kind, base, whole))
    assert train(made_run(kind, base, whole))["resumed"] == []
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "model")
    (parts / step_folder(6) / "COMPLETE").unlink()  # as if it had been killed on the way
    assert train(made_run(kind, base, parts))["resumed"] == [3]
    load = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    untouched, again, undisturbed = (load.from_pretrained(place) for place in (base, parts / "model", whole / "model"))
    state = undisturbed.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    moved = [name for name, value in untouched.state_dict().items() if not torch.equal(value, state[name])]
    assert len(moved) > len(state) // 2
    generator = Generator(str(parts / "model"), Model(base=str(base)))
    prompts = [generator.tokenizer(text)["input_ids"] for text in ("is it the same lamp ?", "yes")]
    questions = [Question(prompt=prompt, limit=5) for prompt in prompts]
    replies = dict(generator.answer(questions))
    assert [replies[i].tokens <= 5 for i in range(2)] == [True, True]
    assert replies == dict(generator.answer(questions))
