"""Models trained for one task learn what is there to learn, from training rows alone, and answer in the task's form."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ecellm.baselines import encoder, recommender, tfidf
from ecellm.config.evaluation import EncoderBaseline, RecommenderBaseline
from ecellm.records import Row
from ecellm.tasks.base import Task
from ecellm.tasks.registry import TASKS
from tests.baselines.made import row

COLORS = ("red", "blue", "green", "black")
KINDS = ("lamp", "mug", "hat", "sock", "pen")
Answers = Callable[[Task, Sequence[Row], Sequence[Row], int], list[str]]


def rows_of(name: str, n: int) -> list[Row]:
    """Rows whose answers can be learnt from their words."""
    found = []
    for k in range(n):
        color, kind = COLORS[k % 4], KINDS[k % 5]
        other = KINDS[(k + 1) % 5]
        texts = [other, f"{color} {kind}"] if k % 2 else [f"{color} {kind}", other]
        items = [f"{letter}: {text}" for letter, text in zip("ABC", [*texts, f"{other} x"], strict=True)]
        right = items[k % 2]
        if name == "AVE":
            value = {"title": f"new {color} {kind}", "target attributes": "Color"}
            output = json.dumps([{"attribute": "color", "value": color, "source": "title"}])
            made = replace(row(name, k), input=json.dumps(value), output=output)
        elif name == "QPR":
            gains = ["E" if text == right else "I" for text in items]
            order = sorted("ABC", key=lambda letter: (gains["ABC".index(letter)] != "E", letter))
            value = {"query": f"{color} {kind}", "product list": items}
            made = replace(row(name, k), input=json.dumps(value), output=",".join(order), option_labels="".join(gains))
        elif name == "SR":
            history = [f"1: {color} {kind}", f"2: {color} {kind}"]
            made = replace(row(name, k), input=json.dumps(history), options=json.dumps(items), output=right[0])
        elif name == "AG":
            said = f"the {kind} is {color}"
            value = {"question": f"is the {kind} {color}?", "document": ["it came on monday", said, "ok"]}
            made = replace(row(name, k), input=json.dumps(value), output=said)
        else:
            same = k % 3 != 0
            pair = {"entity 1": f"{color} {kind}", "entity 2": f"{color} {kind}" if same else "white box"}
            text = json.dumps(pair) if name != "SA" else "very good" if same else "bad and broken"
            yes, no = ("yes", "no") if TASKS[name].kind == "binary" else ("A: exact", "B: other")
            options = None if TASKS[name].kind == "binary" else '["A: exact", "B: other"]'
            made = replace(row(name, k), input=text, options=options, output=yes if same else no)
        found.append(replace(made, id=f"{name}{k}"))
    return found


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> EncoderBaseline:
    """A very small BERT from random weights, with a tokenizer that cuts at spaces."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    path: Path = tmp_path_factory.mktemp("encoder")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({
        word for name in TASKS for one in rows_of(name, 40) for text in (one.input, one.output, one.options or "")
        for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text.lower())
    })  # fmt: skip
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(path)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(path)
    return EncoderBaseline(model=str(path), epochs=10, batch_size=8, learning_rate=5e-3, max_length=64)


def systems(settings: EncoderBaseline) -> dict[str, Answers]:
    return {"tfidf": tfidf.answers, "encoder": partial(encoder.answers, settings=settings)}


EACH_HEAD = ("SA", "QPR", "AVE")


@pytest.mark.parametrize(
    ("system", "name"), [*(("tfidf", name) for name in TASKS), *(("encoder", name) for name in EACH_HEAD)]
)
def test_what_can_be_learnt_is_learnt_and_test_answers_are_never_read(
    name: str, system: str, learner: EncoderBaseline
) -> None:
    of, answers = TASKS[name], systems(learner)[system]
    whole = rows_of(name, 60)
    train, test = whole[:40], whole[40:]
    found = answers(of, train, test, 1)
    assert len(found) == len(test)
    assert all(of.parse(text) is not None for text in found)
    pairs = [(of.parse(text) or "", of.parse(one.output) or "") for text, one in zip(found, test, strict=True)]
    # Of a ranking only the first place can be learnt: the others are equally irrelevant.
    right = sum(a[:1] == b[:1] if name == "QPR" else a == b for a, b in pairs) / len(test)
    assert right >= 0.8, f"{right:.0%} right"
    if system == "encoder" and name != "AVE":
        return  # training again takes long, and the loop is the same
    blind = [replace(one, output="", option_labels=None) for one in test]
    assert answers(of, [], test, 1) == []
    assert answers(of, train, blind, 1) == found


def test_a_row_in_another_form_gets_a_blank_reply_and_no_error() -> None:
    for name in TASKS:
        odd = [replace(row(name, 0), input="no object", options=None)]
        assert len(tfidf.answers(TASKS[name], rows_of(name, 20), odd, 1)) == 1


def test_the_recommender_learns_what_is_bought_after_what() -> None:
    of = TASKS["SR"]
    chain = ("lamp", "mug", "hat", "sock", "pen", "box")
    letters = "ABCDEF"
    rows = []
    for k in range(120):
        begin = k % 6
        history = [f"{n + 1}: {chain[(begin + n) % 6]}" for n in range(3)]
        options = [f"{letter}: {item}" for letter, item in zip(letters, chain, strict=True)]
        output = letters[(begin + 3) % 6]
        rows.append(replace(row("SR", k), input=json.dumps(history), options=json.dumps(options), output=output))
    settings = RecommenderBaseline(epochs=20, dimension=16, learning_rate=1e-2)
    found = recommender.answers(of, rows[:108], rows[108:], 1, settings)
    right = sum(text == one.output for text, one in zip(found, rows[108:], strict=True))
    assert right >= 10
    assert recommender.answers(TASKS["PM"], rows, rows, 1, RecommenderBaseline()) == []
    assert recommender.answers(of, [], rows, 1, RecommenderBaseline()) == []
    unknown = replace(rows[0], input='["1: a new thing"]', options='["A: another", "B: lamp"]')
    assert recommender.answers(of, rows[:60], [unknown], 1, RecommenderBaseline(epochs=1)) == ["A"]


def test_a_value_that_other_rows_have_speaks_for_a_span() -> None:
    """Every colour is the answer of a quarter of the rows, and what is no colour is the answer of none."""
    model = tfidf._SpanModel(rows_of("AVE", 40), 1)
    weights = model._model.coef_[0]
    assert weights[model._hash.transform([["known"]]).indices[0]] > 0


def test_a_value_that_is_not_in_the_text_does_not_move_the_place_of_one_that_is(learner: EncoderBaseline) -> None:
    rows = []
    for one in rows_of("AVE", 24):
        [triple] = json.loads(one.output)
        rows.append(replace(one, output=json.dumps([{**triple, "value": "not there at all"}, triple])))
    found = encoder.answers(TASKS["AVE"], rows, rows[:8], 1, learner.model_copy(update={"epochs": 12}))
    values = [json.loads(reply)[0]["value"] for reply in found]
    assert sum(value in COLORS for value in values) >= 6
