"""Answers do not depend on what shares a batch, and agree with transformers' own greedy search."""

from pathlib import Path

import pytest
import torch

from ecellm.config.schema import Model, TinySizes
from ecellm.model.decode import decode
from ecellm.model.generate import Generator, cut
from ecellm.model.tiny import make_model, train_tokenizer

PROMPTS = [[1, *range(5, 6 + n * 3)] for n in (1, 9, 4, 2, 14, 7, 3, 11, 5, 1, 8, 6, 10, 13, 12, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama with wide enough logits that its answers differ."""
    path: Path = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["a lamp and a chair"] * 3, 400, "alpaca")
    model = make_model(TinySizes(hidden=32, layers=2, heads=2, vocab=400), tokenizer, max_length=256, seed=3)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def generator(folder: str) -> Generator:
    return Generator(folder, Model(base="tiny"), "cpu")


@pytest.mark.parametrize("seeds", [None, list(range(16))], ids=["greedy", "paper"])
def test_batch_size_changes_nothing(generator: Generator, seeds: list[int] | None) -> None:
    limits = [4 + n % 5 * 4 for n in range(16)]
    whole = generator.answer(PROMPTS, limits, seeds=seeds)
    single = [
        generator.answer([prompt], limit, seeds=None if seeds is None else [seeds[n]])[0]
        for n, (prompt, limit) in enumerate(zip(PROMPTS, limits, strict=True))
    ]
    assert whole == single
    assert len({reply.text for reply in whole}) > 8
    assert all(reply.tokens <= limit for reply, limit in zip(whole, limits, strict=True))


def test_greedy_is_transformers_greedy(generator: Generator) -> None:
    for prompt in PROMPTS[:4]:
        ids = torch.tensor([prompt])
        theirs = generator.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        ours = decode(generator.model, [prompt], [12], end_ids=generator.end_ids, pad_id=generator.pad_id)[0]
        assert [*ours.tokens, *([2] if ours.stopped else [])] == theirs[0, len(prompt) :].tolist()


def test_an_end_token_ends_an_answer(generator: Generator) -> None:
    first = decode(generator.model, PROMPTS[:3], [6] * 3, end_ids=frozenset(), pad_id=0)
    end = first[0].tokens[2]
    again = decode(generator.model, PROMPTS[:3], [6] * 3, end_ids=frozenset([end]), pad_id=0)
    assert again[0].stopped
    assert again[0].tokens == first[0].tokens[: first[0].tokens.index(end)]
    assert all(len(one.tokens) == 6 for one in first)


def test_another_seed_draws_another_answer(generator: Generator) -> None:
    texts = {generator.answer([PROMPTS[1]], 12, seeds=[seed])[0].text for seed in range(6)}
    assert len(texts) > 1


def test_encoder_decoder_batches_change_nothing() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    limits = [3 + n % 4 * 3 for n in range(16)]
    whole = decode(model, PROMPTS, limits, end_ids=frozenset([1]), pad_id=0)
    single = [
        decode(model, [prompt], [limit], end_ids=frozenset([1]), pad_id=0)[0]
        for prompt, limit in zip(PROMPTS, limits, strict=True)
    ]
    assert whole == single
    theirs = model.generate(torch.tensor([PROMPTS[4]]), max_new_tokens=limits[4], do_sample=False)[0, 1:].tolist()
    assert [*whole[4].tokens, *([1] if whole[4].stopped else [])] == theirs


def test_nothing_asked_nothing_answered(generator: Generator) -> None:
    assert generator.answer([], 8) == []


def test_a_repeated_separator_ends_the_answer() -> None:
    assert cut(" yes\n\n### Response:\nno", "### Response:") == "yes"
    assert cut(" yes ", "### Response:") == "yes"
