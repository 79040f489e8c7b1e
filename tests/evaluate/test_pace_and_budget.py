"""How fast an endpoint is asked, what it may cost, and what its refusals mean: the parts of the openai engine."""

import random
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from ecellm.errors import ConfigError
from ecellm.evaluate.engines.budget import Budget, dollars
from ecellm.evaluate.engines.pace import LONGEST_WAIT_S, Pace, wait_before
from ecellm.evaluate.engines.refusals import about_the_prompt
from tests.evaluate.endpoint_parts import Time, model


def test_a_budget_that_is_spent_is_told_whatever_the_prompts_cost() -> None:
    """Estimates that were added and taken away again do not come back to 0."""
    budget = Budget(model("http://none", usd_per_million_prompt=2.5, budget_usd=0.01), 0.0, threading.Event())
    costs = [dollars(budget._model.endpoint, tokens, 0) for tokens in (151, 203, 317)]
    with ExitStack() as stack:
        for cost in costs:
            stack.enter_context(budget.room(cost))
    budget.spend(0.0099)
    with pytest.raises(ConfigError, match="budget"), budget.room(costs[0]):
        pass


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"message": "This model's maximum context length is 4096"}, True),
        ({"detail": [{"msg": "use max_completion_tokens", "input": {"content": "the cable is too long"}}]}, False),
        ({"error": {"message": "prompt is too long"}}, True),
        ("the input is too long", True),
        (None, False),
    ],
)
def test_what_a_server_sends_back_is_not_what_it_says(body: object, refused: bool) -> None:
    error = SimpleNamespace(status_code=422, code=None, body=body)
    assert bool(about_the_prompt(error)) == refused


def test_after_a_refusal_a_pace_is_kept_again() -> None:
    """Turns that were given out before it are given out anew behind it."""
    pace, sent, lock = Pace(300, 0), list[float](), threading.Lock()

    def send() -> None:
        pace.wait(1)
        with lock:
            sent.append(time.monotonic())

    threads = [threading.Thread(target=send) for _ in range(6)]
    for one in threads:
        one.start()
    pace.refused(1.0)
    begun = time.monotonic()
    for one in threads:
        one.join()
    assert not [one for one in sent if begun + 0.15 < one < begun + 0.95]
    late = sorted(one for one in sent if one >= begun + 0.95)
    assert len(late) >= 4
    assert late[-1] - late[0] >= 0.1 * (len(late) - 1)  # 0.2 apart, on a machine that may be late itself


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


def test_refusals_hold_everybody_back_longer_each_time_and_less_after_a_success() -> None:
    time = Time()
    pace = Pace(0, 0, clock=time.clock, sleep=time.sleep, draw=random.Random(1))
    assert pace.refused(3.0) == 0
    pace.refused(None)  # sent before it was known: no second refusal
    pace.wait(1)
    assert 3 <= sum(time.waits) <= 3.5
    for _ in range(9):
        since = pace.refused(None)
        pace.wait(1)
    assert since > 30
    assert max(time.waits) <= LONGEST_WAIT_S
    for _ in range(9):
        pace.accepted()
    assert pace.refused(None) == 0
    time.waits.clear()
    pace.wait(1)
    assert sum(time.waits) <= 1.0  # the hold and its jitter


def test_waits_double_have_jitter_and_an_end() -> None:
    draw = random.Random(1)
    waits = [[wait_before(n, None, draw) for _ in range(50)] for n in (1, 4, 20)]
    assert all(len(set(some)) > 40 for some in waits)
    assert max(waits[0]) <= 0.5 < max(waits[1]) <= 4
    assert max(waits[2]) <= LONGEST_WAIT_S
    assert 2 <= wait_before(1, 2.0, draw) <= 2.5
