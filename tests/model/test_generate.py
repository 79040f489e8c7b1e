"""Answers do not depend on what shares a batch or on the way that is taken, and agree with transformers' own greedy
search."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ecellm.config.schema import Model, TinySizes
from ecellm.model.generate import Generator, Question, Reply, cut
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


def replies(generator: Generator, questions: Sequence[Question]) -> list[Reply]:
    found = dict(generator.answer(questions))
    assert sorted(found) == list(range(len(questions)))
    return [found[i] for i in range(len(questions))]


def questions(seeds: Sequence[int] | None, prompts: Sequence[Sequence[int]] = PROMPTS) -> list[Question]:
    return [
        Question(prompt=prompt, limit=4 + n % 5 * 4, seed=None if seeds is None else seeds[n])
        for n, prompt in enumerate(prompts)
    ]


def test_a_llama_takes_the_packed_way(generator: Generator) -> None:
    assert generator.way == "packed"


@pytest.mark.parametrize("seeds", [None, list(range(16))], ids=["greedy", "paper"])
def test_batch_size_changes_nothing(generator: Generator, seeds: list[int] | None) -> None:
    asked = questions(seeds)
    whole = replies(generator, asked)
    assert whole == [replies(generator, [one])[0] for one in asked]
    assert len({reply.text for reply in whole}) > 8
    assert all(reply.tokens <= one.limit for reply, one in zip(whole, asked, strict=True))


def test_narrow_budgets_change_nothing(folder: str, generator: Generator) -> None:
    narrow = Generator(folder, Model(base="tiny"), "cpu", most_tokens=16, most_rows=3)
    assert replies(narrow, questions(None)) == replies(generator, questions(None))


def test_the_padded_way_says_the_same(folder: str, generator: Generator) -> None:
    from ecellm.model.padded import Padded

    other = Generator(folder, Model(base="tiny"), "cpu")
    other.model.set_attn_implementation("sdpa")
    other._decoder = Padded(other.model, other._ending(), other.budget, other.pad_id)
    for seeds in (None, list(range(16))):
        assert replies(other, questions(seeds)) == replies(generator, questions(seeds))
    options = [[(7, 8), (7, 9, 10), (11,)]] * 4
    found, wanted = dict(other.score(PROMPTS[:4], options)), dict(generator.score(PROMPTS[:4], options))
    for n in range(4):
        for one, two in zip(found[n], wanted[n], strict=True):
            assert one.total == pytest.approx(two.total, abs=1e-3)
            assert one.share == pytest.approx(two.share, abs=1e-4)


def test_greedy_is_transformers_greedy(folder: str, generator: Generator) -> None:
    plain = Generator(folder, Model(base="tiny"), "cpu").model
    plain.set_attn_implementation("sdpa")
    for prompt in PROMPTS[:6]:
        ids = torch.tensor([prompt])
        theirs = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        text = generator.tokenizer.decode(theirs[0, len(prompt) :], skip_special_tokens=True)
        assert replies(generator, [Question(prompt=prompt, limit=12)])[0].text == cut(text, generator.separator)


def test_linear_weights_lie_for_few_rows_and_embeddings_by_row(generator: Generator) -> None:
    layer = generator.model.model.layers[0].mlp.up_proj.weight
    assert layer.t().is_contiguous()
    assert generator.model.get_input_embeddings().weight.is_contiguous()


def test_weights_stay_where_copies_of_all_workers_are_too_much(folder: str) -> None:
    model = Generator(folder, Model(base="tiny"), "cpu", workers=10**9).model
    assert model.model.layers[0].mlp.up_proj.weight.is_contiguous()


def test_scores_are_the_models_own_log_probabilities(folder: str, generator: Generator) -> None:
    plain = Generator(folder, Model(base="tiny"), "cpu").model
    plain.set_attn_implementation("sdpa")
    options = [(7, 8), (7, 9, 10), (11,)]
    for index, found in generator.score(PROMPTS[:5], [options] * 5):
        prompt = PROMPTS[index]
        for option, one in zip(options, found, strict=True):
            with torch.no_grad():
                logits = plain(torch.tensor([[*prompt, *option]])).logits[0].log_softmax(-1)
            wanted = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(option))
            assert one.total == pytest.approx(wanted, abs=1e-3)
            assert one.mean == pytest.approx(wanted / len(option), abs=1e-3)
        assert sum(one.share for one in found) == pytest.approx(1)
        assert sum(one.stepwise for one in found) == pytest.approx(1)


def test_prefixes_are_computed_once(folder: str) -> None:
    fresh = Generator(folder, Model(base="tiny"), "cpu")
    before = fresh.prompt_tokens
    replies(fresh, [Question(prompt=[1, *range(5, 60), n], limit=2) for n in range(60, 70)])
    asked, computed = (now - then for now, then in zip(fresh.prompt_tokens, before, strict=True))
    assert asked == 10 * 57
    assert computed == 56 + 10


def test_another_seed_draws_another_answer(generator: Generator) -> None:
    texts = {replies(generator, [Question(prompt=PROMPTS[1], limit=12, seed=seed)])[0].text for seed in range(6)}
    assert len(texts) > 1


def test_where_memory_runs_out_the_rest_is_asked_in_smaller_parts(folder: str, generator: Generator) -> None:
    tight = Generator(folder, Model(base="tiny"), "cpu")
    forward, calls = tight.model.forward, 0

    def sometimes(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if tight.budget.most_rows > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(*args, **kwargs)

    tight.model.forward = sometimes
    assert replies(tight, questions(None)) == replies(generator, questions(None))
    assert 1 <= tight.budget.most_rows <= 4


def test_an_attention_that_is_not_served_takes_the_padded_way(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = train_tokenizer(["a lamp and a chair"] * 3, 400, "alpaca")
    torch.manual_seed(0)
    for window, way in ((None, "packed"), (8, "padded: attention with sliding_window")):
        config = MistralConfig(
            vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, sliding_window=window, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        MistralForCausalLM(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        found = Generator(str(tmp_path), Model(base="tiny"), "cpu")
        assert found.way == way
        ids = torch.tensor([PROMPTS[4]])
        theirs = found.model.generate if way != "packed" else None
        if theirs is not None:
            text = theirs(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[
                0, ids.shape[1] :
            ]
            said = replies(found, [Question(prompt=PROMPTS[4], limit=8)])[0].text
            assert said == cut(found.tokenizer.decode(text, skip_special_tokens=True), found.separator)


def test_encoder_decoder_batches_change_nothing(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=400, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    model.save_pretrained(tmp_path)
    train_tokenizer(["a lamp and a chair"] * 3, 400, "alpaca").save_pretrained(tmp_path)
    found = Generator(str(tmp_path), Model(base="tiny"), "cpu")
    asked = questions(None)
    whole = replies(found, asked)
    assert whole == [replies(found, [one])[0] for one in asked]
    theirs = model.generate(torch.tensor([PROMPTS[4]]), max_new_tokens=asked[4].limit, do_sample=False)[0, 1:]
    assert whole[4].text == cut(found.tokenizer.decode(theirs, skip_special_tokens=True), found.separator)
    option = [(7, 8), (9,)]
    [(_, scored)] = list(found.score([PROMPTS[4]], [option]))
    with torch.no_grad():
        ids = torch.tensor([[0, 7, 8]])
        logits = model(input_ids=torch.tensor([PROMPTS[4]]), decoder_input_ids=ids).logits[0].log_softmax(-1)
    assert scored[0].total == pytest.approx(float(logits[0, 7] + logits[1, 8]), abs=1e-4)
    assert scored[1].total == pytest.approx(float(logits[0, 9]), abs=1e-4)


def test_nothing_asked_nothing_answered(generator: Generator) -> None:
    assert list(generator.answer([])) == []


def test_a_repeated_separator_ends_the_answer(generator: Generator) -> None:
    assert cut(" yes\n\n### Response:\nno", "### Response:") == "yes"
    assert cut(" yes ", "### Response:") == "yes"
    ending = generator._ending()
    ids = generator.tokenizer("a ### Response:")["input_ids"]
    assert ids[-1] in ending.hints
    assert ending.repeats(ids)
    assert not ending.repeats(ids[:-1])
