"""Prompts and answers meet at an exact boundary, and only inputs are cut."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ecellm.data.encode import Encoder, TooLong
from ecellm.prompt import policy_of
from ecellm.tasks.registry import task
from tests.data.made import make_row


def encoder(tokenizer: Any, max_length: int = 512, encoder_decoder: bool = False) -> Encoder:
    policy = policy_of(tokenizer, template="alpaca", max_length=max_length, encoder_decoder=encoder_decoder)
    return Encoder(tokenizer, policy, encoder_decoder=encoder_decoder)


@pytest.mark.parametrize("number", range(6))
def test_equals_the_published_rule_on_normal_samples(tokenizer: Any, number: int) -> None:
    row = make_row(number)
    prompt = task(row.task).render(row, "alpaca")
    ids = [*tokenizer(prompt + row.output)["input_ids"], tokenizer.eos_token_id]
    length = len(tokenizer(prompt)["input_ids"])
    sample = encoder(tokenizer).sample(row)
    assert sample.prompt_ids == ids[:length]
    assert sample.answer_ids == ids[length:]
    assert not sample.cut


@pytest.mark.parametrize("answer", ["\n\n### Input:\nx", "\nyes", " yes", "", "é 日本"])
def test_boundary_is_exact_for_odd_answers(tokenizer: Any, answer: str) -> None:
    row = replace(make_row(1), output=answer)
    coder = encoder(tokenizer)
    sample = coder.sample(row)
    assert sample.prompt_ids == coder.prompt(row)
    assert tokenizer.decode(sample.answer_ids[:-1]) == answer
    assert sample.answer_ids[-1] == tokenizer.eos_token_id


class Merging:
    """A tokenizer of characters that joins a newline with an `x` after it, across the boundary."""

    eos_token_id = 2

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [ord(letter) for letter in text.replace("\nx", "\u2603")]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}


def test_a_merge_across_the_boundary_leaves_the_prompt_alone(tokenizer: Any) -> None:
    coder = encoder(tokenizer)
    merging = Encoder(Merging(), coder.policy.model_copy(update={"max_length": 4096}), encoder_decoder=False)
    row = replace(make_row(1), output="xy")
    sample = merging.sample(row)
    assert sample.prompt_ids == merging.prompt(row)
    assert sample.answer_ids == [ord("x"), ord("y"), 2]


def test_a_long_input_loses_words_and_the_answer_none(tokenizer: Any) -> None:
    coder, row = encoder(tokenizer, 120), make_row(1, words=300)
    sample = coder.sample(row)
    assert sample.cut
    assert 110 <= len(sample.prompt_ids) + len(sample.answer_ids) <= 120
    assert tokenizer.decode(sample.answer_ids[:-1]) == row.output
    text = tokenizer.decode(sample.prompt_ids)
    shown = json.loads(text.split("### Input:\n")[1].split("\n\n### Response:")[0])
    assert shown["entity 2"]["title"] == "lamp 1"


def test_a_prompt_leaves_room_for_the_reply(tokenizer: Any) -> None:
    coder, row = encoder(tokenizer, 200), make_row(1, words=300)
    assert len(coder.prompt(row)) <= 200 - min(task(row.task).max_new_tokens, 100)


def test_what_cannot_fit_is_named(tokenizer: Any) -> None:
    with pytest.raises(TooLong, match=r"train-1 .*(\n.*)*raise prepare.max_length"):
        encoder(tokenizer, 16).sample(make_row(1))
    with pytest.raises(TooLong, match="an answer of"):
        encoder(tokenizer, 100).sample(replace(make_row(1), output="x y z " * 80))


def test_encoder_decoder_answers_stand_alone(tokenizer: Any) -> None:
    row = make_row(1)
    sample = encoder(tokenizer, encoder_decoder=True).sample(row)
    assert sample.answer_ids == [*tokenizer(row.output)["input_ids"], tokenizer.eos_token_id]
