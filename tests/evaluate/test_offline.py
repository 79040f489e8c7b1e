"""The vllm engine as far as a machine without vLLM can tell: what it asks of the library, and what it makes of it."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ecellm.config.schema import Model
from ecellm.errors import ConfigError
from ecellm.evaluate.engines.offline import Offline
from ecellm.evaluate.requests import Form, request


class Library(ModuleType):
    """Stands for vLLM: keeps what it was asked, answers as it was told."""

    def __init__(self) -> None:
        super().__init__("vllm")
        self.made: dict[str, Any] = {}
        self.prompts: list[Any] = []
        self.outputs: list[SimpleNamespace] = []
        library = self

        class LLM:
            def __init__(self, **settings: Any) -> None:
                library.made = settings

            def generate(self, prompts: list[Any], sampling: list[Any], use_tqdm: bool) -> list[Any]:
                library.prompts = list(zip(prompts, sampling, strict=True))
                return [SimpleNamespace(outputs=[one]) for one in library.outputs]

        self.LLM = LLM
        self.SamplingParams = lambda **settings: settings


def said(text: str, tokens: int, finish: str, stop: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(text=text, token_ids=list(range(tokens)), finish_reason=finish, stop_reason=stop)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setitem(sys.modules, "vllm", found)
    return found


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"ecellm\[vllm\]"):
        Offline("folder", Model(base="folder"), gpu=False)


def test_token_ids_go_in_and_answers_come_back_under_their_own_keys(library: Library) -> None:
    engine = Offline("folder", Model(base="folder"), gpu=False, longest=512, most_rows=4, separator="### Response:")
    assert library.made["model"] == "folder"
    assert library.made["enable_prefix_caching"]
    assert (library.made["dtype"], library.made["max_model_len"], library.made["max_num_seqs"]) == ("float32", 512, 4)
    settings: dict[str, Any] = {"model": "m", "max_new_tokens": 8, "seed": 1}
    decodings = ("greedy", "paper", "greedy")
    asked = [request([1, 2, n], decoding=decoding, **settings) for n, decoding in enumerate(decodings)]
    # An end token is among the tokens; a stop string is in the text alone; a cut answer has neither.
    library.outputs = [said(" yes", 2, "stop"), said("no\n", 3, "stop", "### Response:"), said("so on", 8, "length")]
    found = list(engine.answer(asked))
    assert [one.key for one in found] == [one.key for one in asked]
    assert [(one.text, one.tokens, one.finish_reason) for one in found] == [
        ("yes", 1, "stop"), ("no", 3, "stop"), ("so on", 8, "length"),
    ]  # fmt: skip
    (prompt, greedy), (_, paper), _ = library.prompts
    assert prompt == {"prompt_token_ids": [1, 2, 0]}
    assert (greedy["temperature"], greedy["max_tokens"], greedy["stop"]) == (0.0, 8, ["### Response:"])
    assert (paper["temperature"], paper["top_p"], paper["max_tokens"]) == (0.15, 0.95, 100)
    assert paper["seed"] == asked[1].seed
    assert engine.facts().prompt_tokens == 9


def test_a_decoding_that_it_does_not_have_is_refused(library: Library) -> None:
    engine = Offline("folder", Model(base="folder"), gpu=True)
    assert "dtype" not in library.made
    assert list(engine.answer([])) == []
    form = Form(options=("yes", "no"), tokens=((5,), (6,)))
    one = request([1], model="m", decoding="choice", max_new_tokens=8, seed=1, form=form)
    with pytest.raises(ConfigError, match="choice with the engine vllm"):
        list(engine.answer([one]))
