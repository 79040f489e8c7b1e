"""The openai engine against a real server on this machine that fails in every way it knows."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ecellm.config.schema import Run
from ecellm.errors import ClusterError, ConfigError, EcellmError, Stopped
from ecellm.evaluate.engines import endpoint as openai_engine
from ecellm.evaluate.engines.budget import dollars
from ecellm.evaluate.engines.endpoint import MOST_MALFORMED, TOO_FAST_S, Remote
from ecellm.evaluate.log import UNANSWERED, Answer
from ecellm.evaluate.requests import Request, request
from tests.evaluate.conftest import BOTH
from tests.evaluate.endpoint_parts import Time, model
from tests.evaluate.endpoint_server import Books, endpoint, reply_to


def asked(n: int, decoding: str = "greedy") -> list[Request]:
    prompts = [f"prompt {k} with a word more" for k in range(n)]
    return [request(list(text.encode()), model="m", decoding=decoding, max_new_tokens=32, seed=1) for text in prompts]


def engine(url: str, stopping: Callable[[], bool] = lambda: False, **settings: Any) -> tuple[Remote, list[float]]:
    """An engine that does not really wait, and the waits that it wanted."""
    time, draw = Time(), random.Random(1)
    found = Remote(
        model(url, **settings), "secret", stopping=stopping, clock=time.clock, sleep=time.sleep, draw=draw
    )  # fmt: skip
    return found, time.waits


def text(one: Request) -> str:
    return bytes(one.prompt_ids).decode()


def billed(answers: Iterable[Answer], books: Books) -> bool:
    """Whether the bills are the server's."""
    bills = [one.bill for one in answers if one.bill]
    found = [sum(bill[name] for bill in bills) for name in ("prompt_tokens", "answer_tokens", "attempts")]
    return found == [books.prompt_tokens, books.answer_tokens, books.asked.total()]


def until(found: Remote, requests: Sequence[Request], error: type[EcellmError], said: str) -> list[Answer]:
    """What was handed out before the error."""
    got: list[Answer] = []
    with pytest.raises(error, match=said):
        got.extend(found.answer(requests))
    return got


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
    assert len(waits) >= sum(times for fault, times in books.faults.items() if fault[:3] not in ("429", "non"))
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
    status: int, code: str, error: type[EcellmError], said: str
) -> None:
    requests = asked(12)
    with endpoint(delay=0.02) as (url, books):
        books.refuse[text(requests[5])] = (status, code)
        got = until(engine(url, concurrency=3)[0], requests, error, said)
    kept = [one for one in got if one.finish_reason != UNANSWERED]
    assert 5 <= len(kept) < 11
    assert books.asked[text(requests[5])] == 1
    assert len(kept) == books.answered.total()
    assert billed(got, books)


def test_tries_come_to_an_end() -> None:
    with endpoint() as (url, books):
        books.always = lambda prompt: "500"
        found, waits = engine(url, attempts=2, concurrency=1)
        got = until(found, asked(3), ClusterError, "2 tries of one request failed")
    assert [one.finish_reason for one in got] == [UNANSWERED]
    assert len(waits) == 1


def test_a_reply_that_was_all_thought_is_an_answer_without_text() -> None:
    requests = asked(3)
    with endpoint() as (url, books):
        books.always = lambda prompt: "cut off" if prompt == text(requests[1]) else ""
        got = answers(engine(url)[0], requests)
    assert [got[one.key].finish_reason for one in requests] == ["stop", "length", "stop"]
    assert got[requests[1].key].text == ""
    assert books.asked.total() == 3
    assert billed(got.values(), books)


def test_a_prompt_that_is_refused_in_words_is_an_answer_too() -> None:
    requests = asked(2)
    with endpoint() as (url, books):
        books.always = lambda prompt: "too long" if prompt == text(requests[0]) else ""
        got = answers(engine(url)[0], requests)
    assert [got[one.key].finish_reason for one in requests] == ["refused: context_length_exceeded", "stop"]
    assert books.asked.total() == 2


def test_a_prompt_whose_replies_are_all_malformed_fails_alone_and_is_billed() -> None:
    requests = asked(5)
    with endpoint() as (url, books):
        books.always = lambda prompt: "no choices" if prompt == text(requests[0]) else ""
        got = answers(engine(url, attempts=3, concurrency=1)[0], requests)
        again = until(engine(url, attempts=1)[0], requests[:1], ClusterError, "no reply that can be used")
        third = Remote(model(url, attempts=1), "", struck={one.key.partition("/")[0] for one in again})
        few = answers(third, requests[:1])
    assert [got[one.key].finish_reason for one in requests] == ["malformed", *["stop"] * 4]
    assert got[requests[0].key].bill == {"prompt_tokens": 18, "answer_tokens": 3, "attempts": 3}
    assert [one.finish_reason for one in few.values()] == ["malformed"]
    assert billed([*got.values(), *again, *few.values()], books)


def test_prompts_that_fail_for_good_among_others_are_no_break_down_however_many() -> None:
    requests = asked(40)
    bad = {text(one) for one in requests[::3]} - {text(requests[-1])}
    with endpoint() as (url, books):
        books.always = lambda prompt: "no choices" if prompt in bad else ""
        got = answers(engine(url, attempts=1, concurrency=1)[0], requests)
    assert len(bad) > MOST_MALFORMED
    assert {one.key for one in got.values() if one.finish_reason == "malformed"} == {
        one.key for one in requests if text(one) in bad
    }


def test_a_server_that_breaks_down_after_a_while_fails_no_row_for_good() -> None:
    requests = asked(40)
    with endpoint() as (url, books):
        books.always = lambda prompt: "no choices" if books.asked.total() > 10 else ""
        got = until(engine(url, attempts=2, concurrency=2)[0], requests, ClusterError, "no reply that can be used")
    assert {one.finish_reason for one in got} == {"stop", UNANSWERED}
    assert billed(got, books)


def test_a_server_that_gives_nothing_but_malformed_replies_is_an_error_and_no_row_fails() -> None:
    with endpoint() as (url, books):
        books.always = lambda prompt: "no choices"
        got = until(engine(url, attempts=2, concurrency=2)[0], asked(30), ClusterError, "no reply that can be used")
    assert {one.finish_reason for one in got} == {UNANSWERED}
    assert MOST_MALFORMED <= len(got) <= MOST_MALFORMED + 2
    assert billed(got, books)


def test_a_stop_keeps_what_is_under_way_and_nothing_is_asked_twice() -> None:
    requests = asked(20)
    with endpoint(delay=0.1) as (url, books):
        found = engine(url, stopping=lambda: books.asked.total() >= 4, concurrency=4)[0]
        got = until(found, requests, Stopped, "stopped on request")
        assert 4 <= len(got) == books.asked.total() < 20
        known = {one.key for one in got}
        got += engine(url)[0].answer([one for one in requests if one.key not in known])
    assert set(books.asked.values()) == {1}
    assert {one.key for one in got} == {one.key for one in requests}
    assert billed(got, books)


def test_a_stop_ends_waits_and_keeps_the_bills_of_what_was_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_engine, "LOOK_S", 0.02)
    with endpoint() as (url, books):
        books.always = lambda prompt: "429 told" if prompt == text(requests[0]) else "no choices"
        requests = asked(4)
        found = Remote(model(url, attempts=50), "", stopping=lambda: books.asked.total() >= 12)
        got = until(found, requests, Stopped, "stopped on request")
    assert {one.finish_reason for one in got} == {UNANSWERED}
    assert {one.key.partition("/")[0] for one in got} == {one.key for one in requests}
    assert billed(got, books)


def test_the_budget_stops_before_the_bill_grows_beyond_it() -> None:
    with endpoint(delay=0.02) as (url, books):
        found, _ = engine(url, concurrency=8, usd_per_million_prompt=1e6, usd_per_million_answer=1e6, budget_usd=60)
        got = until(found, asked(10), ConfigError, "budget")
    # 6 prompt tokens and 1 answer token at a dollar each, of which 32 were possible: the fifth might go beyond.
    assert len(got) == books.asked.total() == 4
    assert found.spent == 28
    assert dollars(found.place, 6, 1) == 7


def test_being_asked_too_fast_takes_no_tries_and_slows_everybody_down() -> None:
    requests = asked(12)
    with endpoint() as (url, books):
        books.busy = 10
        found, waits = engine(url, concurrency=2, attempts=1)
        got = answers(found, requests)
    assert {one.finish_reason for one in got.values()} == {"stop"}
    assert max(waits) > 1
    assert billed(got.values(), books)


def test_being_asked_too_fast_for_ever_comes_to_an_end() -> None:
    with endpoint() as (url, books):
        books.busy = 10**9
        found, waits = engine(url, concurrency=2, attempts=1)
        got = until(found, asked(4), ClusterError, "asked too fast")
    assert {one.finish_reason for one in got} == {UNANSWERED}
    assert TOO_FAST_S / 2 < sum(waits) < 6 * TOO_FAST_S
    assert books.asked.total() < 200


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


def test_a_stage_that_was_stopped_has_the_whole_bill_in_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecellm.evaluate import run as stage

    monkeypatch.setattr(openai_engine, "LOOK_S", 0.02)
    with endpoint(delay=0.02) as (url, books):
        books.always = lambda prompt: "no choices" if prompt == next(iter(books.asked)) else ""

        @contextmanager
        def stop_requests() -> Iterator[Callable[[], bool]]:
            yield lambda: books.asked.total() >= 6

        place = {"url": url, "concurrency": 4, "usd_per_million_prompt": 2}
        models = [{"name": "gpt", "model": "gpt-4", "engine": "openai", "endpoint": place}]
        settings = {**run.evaluate.model_dump(), "systems": [], "models": models}
        run = run.model_copy(update={"evaluate": type(run.evaluate).model_validate(settings)})
        with monkeypatch.context() as patched:
            patched.setattr(stage, "stop_requests", stop_requests)
            with pytest.raises(Stopped):
                stage.evaluate(run)
        assert books.faults["no choices"]
        assert 0 < books.answered.total() < 10
        books.always = lambda prompt: ""
        stage.evaluate(run)
    assert set(books.answered.values()) == {1}
    assert len(books.answered) == 10
    bill = json.loads((Path(run.out) / "evaluation/COMPLETE").read_text())["voices"]["gpt"]["bill"]
    assert bill["prompt_tokens"] == books.prompt_tokens
    assert bill["attempts"] == books.asked.total()
