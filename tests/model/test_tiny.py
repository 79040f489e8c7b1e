"""The tiny preset: the same from the same seed, short prompts, whole after saving."""

from pathlib import Path

import pytest
import torch

from ecellm.config.schema import Model, TinySizes
from ecellm.errors import ConfigError
from ecellm.model.load import load_model, load_tokenizer
from ecellm.model.tiny import make_model, train_tokenizer
from ecellm.tasks.template import fill

SIZES = TinySizes(hidden=16, layers=1, heads=2, vocab=300)
TEXTS = ["a red lamp 120 W", "A: the lamp", "B: the chair"] * 5


def test_the_template_costs_few_tokens() -> None:
    tokenizer = train_tokenizer(TEXTS, 300, "alpaca")
    prompt = fill("alpaca", "A", "B", "C")
    assert len(tokenizer(prompt)["input_ids"]) == 1 + 4 + 3
    assert tokenizer.decode(tokenizer(prompt)["input_ids"], skip_special_tokens=True) == prompt


def test_letters_and_digits_are_the_same_tokens_everywhere() -> None:
    tokenizer = train_tokenizer(TEXTS, 300, "alpaca")
    letter = tokenizer("A", add_special_tokens=False)["input_ids"]
    assert len(letter) == 1
    assert letter[0] in tokenizer('["A: the lamp"]')["input_ids"]
    assert len(tokenizer("120", add_special_tokens=False)["input_ids"]) == 3


def test_equal_seeds_give_equal_weights_and_logits_after_saving(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300, "alpaca")
    assert tokenizer.backend_tokenizer.to_str() == train_tokenizer(TEXTS, 300, "alpaca").backend_tokenizer.to_str()
    torch.manual_seed(7)
    one = make_model(SIZES, tokenizer, max_length=64, seed=3).eval()
    other, third = (make_model(SIZES, tokenizer, max_length=64, seed=seed) for seed in (3, 4))
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(one.lm_head.weight, third.lm_head.weight)
    one.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), Model(base="tiny"), dtype=torch.float32, attention="sdpa").eval()
    ids = torch.tensor([load_tokenizer(str(tmp_path))("a red lamp")["input_ids"]])
    assert torch.allclose(one(ids).logits, loaded(ids).logits, atol=1e-6)


@pytest.mark.parametrize(("sizes", "fault"), [({"vocab": 100}, "vocab"), ({"hidden": 18, "heads": 4}, "hidden")])
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int], fault: str) -> None:
    chosen = SIZES.model_copy(update=sizes)
    with pytest.raises(ConfigError, match=f"model.tiny.{fault}"):
        make_model(chosen, train_tokenizer(TEXTS, chosen.vocab, "alpaca"), max_length=64, seed=1)
