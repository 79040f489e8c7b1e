"""A model's prompts are recorded, and another tokenizer is refused."""

from pathlib import Path
from typing import Any

import pytest

from ecellm.errors import CheckpointError
from ecellm.model.load import load_tokenizer
from ecellm.model.tiny import train_tokenizer
from ecellm.prompt import check, policy_of, read_policy, tokenizer_digest


def made(word: str) -> Any:
    return train_tokenizer([f"a {word} {word}"] * 9, 300, "alpaca")


def test_policy_survives_its_file_and_the_tokenizer_its_folder(tmp_path: Path) -> None:
    tokenizer = made("lamp")
    policy = policy_of(tokenizer, template="alpaca", max_length=64, encoder_decoder=False)
    assert policy.bos
    assert read_policy(policy.to_json(), "prompt.json") == policy
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    loaded(["a", "a lamp"], padding=True, truncation=True, max_length=4)
    check(policy, loaded)


def test_another_tokenizer_is_refused_with_both_named() -> None:
    mine, other = made("lamp"), made("chair")
    policy = policy_of(mine, template="alpaca", max_length=64, encoder_decoder=False)
    with pytest.raises(CheckpointError) as caught:
        check(policy, other)
    assert tokenizer_digest(mine) in str(caught.value)
    assert tokenizer_digest(other) in str(caught.value)


def test_a_broken_file_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"OUT/prompt.json"):
        read_policy(b'{"template": "alpaca"}', "OUT/prompt.json")
