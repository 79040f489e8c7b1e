"""The openai engine against a real server on this machine that fails in every way it knows."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ecellm.config.evaluation import Endpoint, NamedModel
from ecellm.config.schema import Run
from ecellm.errors import ClusterError, ConfigError
from ecellm.evaluate.engines.endpoint import Remote, dollars
from ecellm.evaluate.engines.pace import LONGEST_WAIT_S, Pace, wait_before
from ecellm.evaluate.log import Answer
from ecellm.evaluate.requests import Request, request
from tests.evaluate.conftest import BOTH
from tests.evaluate.endpoint_server import endpoint, reply_to


def asked(n: int, decoding: str = "greedy") -> list[Request]:
    prompts = [f"prompt {k} with a word more" for k in range(n)]
    return [request(list(text.encode()), model="m", decoding=decoding, max_new_tokens=32, seed=1) for text in prompts]


def engine(url: str, **settings: Any) -> tuple[Remote, list[float]]:
    """An engine that does not really wait, and the waits that it wanted."""
    waits: list[float] = []
    place = Endpoint(url=url, timeout_s=1, **settings)
    model = NamedModel(name="gpt", model="gpt-4", engine="openai", endpoint=place)
    return Remote(model, "secret", sleep=waits.append, draw=random.Random(1)), waits


def text(one: Request) -> str:
    return bytes(one.prompt_ids).decode()


def answers(found: Remote, requests: Sequence[Request]) -> dict[str, Answer]:
    got = list(found.answer(requests))
    assert len({one.key for one in got}) == len(got)
    return {one.key: one for one in got}


def test_every_fault_is_survived_and_every_billed_try_counted() -> None:
    requests = asked(80)
    with endpoint(share=0.6) as (url, books):
        found, waits = engine(url, concurrency=8)
        got = answers(found, requests)
    assert {key: one.text for key, one in got.items()} == {one.key: reply_to(text(one)) for one in requests}
    assert len(books.faults) > 7
    assert all(times == 1 for times in books.answered.values())
    assert sum(one.bill["prompt_tokens"] for one in got.values() if one.bill) == books.prompt_tokens
    assert sum(one.bill["answer_tokens"] for one in got.values() if one.bill) == books.answer_tokens
    attempts = sum(one.bill["attempts"] for one in got.values() if one.bill)
    assert attempts >= sum(books.asked.values())  # a connection that breaks early is an attempt that nobody heard
    assert len(waits) == attempts - len(requests)
    assert books.most_at_once <= 8
    assert books.keys == {"Bearer secret"}


def test_greedy_and_the_papers_sampling_are_asked_for_by_their_numbers() -> None:
    with endpoint() as (url, books):
        answers(engine(url)[0], asked(1))
        answers(engine(url, api="completions")[0], asked(1, "paper"))
    assert books.settings[0] == {"model": "gpt-4", "temperature": 0.0, "max_tokens": 32}
    assert books.settings[1] | {"seed": 0} == {
        "model": "gpt-4", "temperature": 0.15, "top_p": 0.95, "max_tokens": 100, "seed": 0,
    }  # fmt: skip


def test_a_refused_prompt_is_an_answer_that_says_so() -> None:
    requests = asked(3)
    with endpoint() as (url, books):
        books.refuse[text(requests[1])] = (400, "content_filter")
        got = answers(engine(url)[0], requests)
    assert [got[one.key].finish_reason for one in requests] == ["stop", "refused: content_filter", "stop"]
    assert got[requests[1].key].text == ""


def test_a_reply_that_a_filter_took_is_an_answer_and_is_not_asked_for_again() -> None:
    requests = asked(2)
    with endpoint() as (url, books):
        books.filtered.add(text(requests[0]))
        got = answers(engine(url)[0], requests)
    assert [got[one.key].finish_reason for one in requests] == ["refused: content_filter", "stop"]
    assert books.asked.total() == 2
    assert sum(one.bill["prompt_tokens"] for one in got.values() if one.bill) == books.prompt_tokens


def test_another_name_for_the_limit_is_learnt_even_with_one_try() -> None:
    requests = asked(6)
    with endpoint() as (url, books):
        books.refuse_setting = "max_tokens"
        found, waits = engine(url, attempts=1, concurrency=2)
        got = answers(found, requests)
    assert {one.finish_reason for one in got.values()} == {"stop"}
    assert not waits
    refused = sum("max_tokens" in one for one in books.settings)
    assert 1 <= refused <= 2  # those that were under way at once before it was known
    assert sum("max_completion_tokens" in one for one in books.settings) == 6


@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (401, "invalid_api_key", ConfigError, "OPENAI_API_KEY"),
        (404, "model_not_found", ConfigError, "no model 'gpt-4'"),
        (400, "unknown_parameter", ConfigError, "refuses the request"),
        (429, "insufficient_quota", ClusterError, "quota"),
    ],
)
def test_what_trying_again_does_not_mend_ends_at_once_with_the_rest_kept(
    status: int, code: str, error: type[Exception], said: str
) -> None:
    requests = asked(12)
    got = []
    with endpoint(delay=0.02) as (url, books):
        books.refuse[text(requests[5])] = (status, code)
        with pytest.raises(error, match=said):
            got.extend(engine(url, concurrency=3)[0].answer(requests))
    assert 5 <= len(got) < 11
    assert books.asked[text(requests[5])] == 1
    assert len(got) == books.answered.total()


def test_tries_come_to_an_end() -> None:
    with endpoint() as (url, books):
        books.share = 1.0
        found, waits = engine(url, attempts=2, concurrency=1)
        with pytest.raises(ClusterError, match="2 tries of one request failed"):
            list(found.answer(asked(3)))
    assert len(waits) >= 1


def test_the_budget_stops_the_bill() -> None:
    with endpoint() as (url, books):
        found, _ = engine(url, concurrency=1, usd_per_million_prompt=1e6, budget_usd=17)
        got = []
        with pytest.raises(ConfigError, match="budget"):
            got.extend(found.answer(asked(10)))
    assert len(got) == 3  # 6 dollars each: the third goes beyond, the fourth is not asked
    assert dollars(found.place, 6, 0) == 6
    assert books.asked.total() == 3


def test_a_pace_keeps_its_distance() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(60, 6000, clock=lambda: now[0], sleep=sleep)
    for tokens in (10, 500, 10):
        pace.wait(tokens)
    assert slept == [pytest.approx(1.0), pytest.approx(5.0)]
    Pace(0, 0, sleep=sleep).wait(10**9)
    assert len(slept) == 2


def test_waits_double_have_jitter_and_an_end() -> None:
    draw = random.Random(1)
    waits = [[wait_before(n, None, draw) for _ in range(50)] for n in (1, 4, 20)]
    assert all(len(set(some)) > 40 for some in waits)
    assert max(waits[0]) <= 0.5 < max(waits[1]) <= 4
    assert max(waits[2]) <= LONGEST_WAIT_S
    assert 2 <= wait_before(1, 2.0, draw) <= 2.5


def test_the_stage_asks_an_endpoint_and_keeps_the_bill(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecellm.evaluate.run import evaluate

    monkeypatch.setenv("OTHER_KEY", "hush")
    with endpoint() as (url, books):
        model = {"name": "gpt", "model": "gpt-4", "engine": "openai", "shots": 1,
                 "endpoint": {"url": url, "key_variable": "OTHER_KEY", "usd_per_million_prompt": 2}}  # fmt: skip
        settings = {**run.evaluate.model_dump(), "systems": ["trivial"], "models": [model]}
        run = run.model_copy(update={"evaluate": type(run.evaluate).model_validate(settings)})
        scores = evaluate(run)["scores"]
        assert books.asked.total() == 10
        (Path(run.out) / "evaluation/COMPLETE").unlink()
        evaluate(run)
        assert books.asked.total() == 10
    assert scores["gpt"][BOTH[0]]["PM"]["n"] == 6
    assert any("### Response:\n" in prompt and prompt.count("### Response:\n") == 2 for prompt in books.asked)
    marker = json.loads((Path(run.out) / "evaluation/COMPLETE").read_text())["voices"]["gpt"]
    assert marker["bill"]["prompt_tokens"] == books.prompt_tokens
    assert marker["dollars"] == pytest.approx(2e-6 * books.prompt_tokens)
    kept = "".join(path.read_text() for path in Path(run.out).rglob("*.json*"))
    assert "hush" not in kept
