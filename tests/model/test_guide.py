"""Answers under a grammar are valid whatever the model is, on both ways of decoding; a random model shows it best."""

import json
from pathlib import Path

import pytest
import torch

from ecellm.config.schema import Model, TinySizes
from ecellm.errors import ConfigError
from ecellm.model.generate import Generator, Question
from ecellm.model.guide import Grammars
from ecellm.model.tiny import make_model, train_tokenizer
from ecellm.records import Row
from ecellm.tasks.grammar import MOST_TRIPLES
from ecellm.tasks.registry import TASKS

FIELDS = {"title": 'a "lamp"', "description": "Größe 7", "target attributes": "color and größe"}
ROW = Row(
    split="test", task="Attribute_Value_Extraction", setting="IND_Diverse_Instruction", instruction="Extract.",
    input=json.dumps(FIELDS), options=None, output="[]", few_shot_example=None, id="1", source="made up",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(['[{"attribute": "color", "value": "red lamp", "source": "title"}]'] * 3, 400, "alpaca")
    model = make_model(TinySizes(hidden=32, layers=1, heads=2, vocab=400), tokenizer, max_length=256, seed=3)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("way", ["packed", "padded"])
def test_every_answer_that_ends_is_a_list_of_triples_of_what_was_asked_for(folder: str, way: str) -> None:
    of = TASKS["AVE"]
    assert of.grammar is not None
    generator = Generator(folder, Model(base="tiny"), "cpu")
    if way == "padded":
        from ecellm.model.padded import Padded

        generator.model.set_attn_implementation("sdpa")
        generator._decoder = Padded(generator.model, generator._ending(), generator.budget, generator.pad_id)
    free = [Question(prompt=[1, 5, 6 + n], limit=60, seed=n) for n in range(6)]
    assert not any(of.parse(reply.text) for _, reply in generator.answer(free))  # it knows nothing of the form
    # A limit that not all of them reach: the longest possible answers are much longer.
    bound = [Question(prompt=[1, 5, 6 + n], limit=500, seed=n, grammar=of.grammar(ROW)) for n in range(6)]
    replies = [reply for _, reply in generator.answer(bound)]
    ended = [reply.text for reply in replies if reply.finish_reason == "stop"]
    assert ended
    for text in ended:
        triples = json.loads(text)
        assert 1 <= len(triples) <= MOST_TRIPLES
        for one in triples:
            assert set(one) == {"attribute", "value", "source"}
            assert one["attribute"] in ("color", "größe")
            assert one["source"] in ("title", "description") or (one["value"], one["source"]) == ("None", "None")
        assert of.parse(text) is not None
    assert all(reply.text.startswith('[{"attribute": "') for reply in replies)


def test_a_row_that_cannot_be_read_has_no_grammar_and_a_wrong_grammar_is_named(folder: str) -> None:
    from dataclasses import replace

    of = TASKS["AVE"]
    assert of.grammar is not None
    assert of.grammar(replace(ROW, input="no object")) == ""
    generator = Generator(folder, Model(base="tiny"), "cpu")
    grammars = Grammars(generator.tokenizer, 400, generator.end_ids)
    with pytest.raises(ConfigError, match="grammar is wrong"):
        grammars.guide("start: [")
