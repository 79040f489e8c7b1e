"""Each rule refuses what it is there to refuse, and names the setting."""

from __future__ import annotations

from typing import Any

import pytest

from ecellm.config.rules import RULES, faults
from ecellm.config.schema import Run

GOOD: dict[str, Any] = {"name": "x", "out": "o", "sources": {"made_up": {}}, "model": {"base": "tiny"}}


def test_a_good_run_has_no_fault() -> None:
    assert faults(Run.model_validate(GOOD)) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"sources": {}}, "sources"),
        ({"sources": {"made_up": {}, "published": "x.json"}}, "sources"),
        ({"sources": {"files": [{"format": "mave", "path": "a"}] * 2}}, "sources.files.1.path"),
        ({"out": "gs://x"}, "out"),
        ({"out": "s3://"}, "out"),
        ({"out": " "}, "out"),
        ({"train": {"batch_size": 3}, "cluster": {"workers": 4}}, "train.batch_size"),
        ({"train": {"pack_tokens": 512}}, "train.pack_tokens"),
        ({"cluster": {"workers": 2, "min_workers": 3}}, "cluster.min_workers"),
        ({"model": {"base": "tiny", "attention": "flex_attention"}}, "model.attention"),
        ({"prepare": {"max_length": 64}}, "prepare.max_length"),
        ({"evaluate": {"batch_tokens": 1000}}, "evaluate.batch_tokens"),
        ({"model": {"base": "tiny", "tiny": {"hidden": 100, "heads": 3}}}, "model.tiny.hidden"),
        ({"model": {"base": "tiny", "tiny": {"vocab": 300}}}, "model.tiny.vocab"),
        ({"train": {"engine": "plain"}, "cluster": {"workers": 2}}, "train.engine"),
        ({"train": {"engine": "plain"}, "model": {"base": "tiny", "lora": {}}}, "train.engine"),
        ({"model": {"base": "x", "attention": "flash_attention_2"}}, "model.attention"),
        ({"train": {"learning_rate": 0.1}}, "train.learning_rate"),
        ({"train": {"learning_rate": 0.01}, "model": {"base": "some/model"}}, "train.learning_rate"),
        ({"train": {"betas": (0.9, 1.0)}}, "train.betas"),
        ({"train": {"warmup_ratio": 1.0}}, "train.warmup_ratio"),
        ({"train": {"rehearse_failure_at": 10}}, "train.rehearse_failure_at"),
        ({"train": {"rehearse_failure_at": 300}, "cluster": {"max_failures": 0}}, "cluster.max_failures"),
        ({"build": {"recipe": "paper", "negatives": "hard"}}, "build.negatives"),
        ({"evaluate": {"settings": ["IND"]}}, "evaluate.settings.0"),
        ({"evaluate": {"tasks": ["PM"]}, "build": {"tasks": ["SA"]}}, "evaluate.tasks"),
        ({"evaluate": {"systems": []}}, "evaluate.systems"),
        ({"evaluate": {"models": [{"name": "tfidf", "model": "x"}]}}, "evaluate.models.0.name"),
        ({"evaluate": {"models": [{"name": "a", "model": "x"}] * 2}}, "evaluate.models.1.name"),
        (
            {"evaluate": {"models": [{"name": "a", "model": "x", "engine": "openai", "endpoint": {"url": "x/v1"}}]}},
            "evaluate.models.0.endpoint.url",
        ),
        ({"evaluate": {"also": ["choice", "choice"]}}, "evaluate.also"),
        ({"evaluate": {"engine": "vllm", "also": ["choice"]}}, "evaluate.also"),
        ({"evaluate": {"engine": "vllm", "decoding": "choice"}}, "evaluate.decoding"),
        ({"probe": {"setting": "IND"}}, "probe.setting"),
        ({"probe": {"rows": 4}, "train": {"engine": "plain"}}, "probe.rows"),
    ],
)
def test_a_broken_rule_names_its_setting(change: dict[str, Any], path: str) -> None:
    found = faults(Run.model_validate({**GOOD, **change}))
    assert [fault.path for fault in found] == [path]
    assert found[0].problem
    assert found[0].expected


def test_every_rule_says_why() -> None:
    assert all(rule.__doc__ for rule in RULES)


def test_a_further_decoding_is_for_the_models_that_can() -> None:
    beside = {"name": "a", "model": "x", "engine": "openai"}
    assert not faults(Run.model_validate({**GOOD, "evaluate": {"models": [beside], "also": ["choice"]}}))
