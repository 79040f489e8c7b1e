"""Requests are named by content; the plan loses none, and keeps together what begins alike."""

import random

from ecellm.evaluate.plan import MOST_ROWS, cost, saved_share, units
from ecellm.evaluate.requests import Form, Request, prompt_digest, request


def _ask(ids: list[int], **other: object) -> Request:
    settings = {"model": "m", "decoding": "greedy", "max_new_tokens": 8, "seed": 1} | other
    return request(ids, **settings)  # type: ignore[arg-type]


def test_the_key_is_the_content() -> None:
    assert _ask([1, 2]) == _ask([1, 2])
    yes, no = Form(options=("yes", "no"), tokens=((5,), (6,))), Form(options=("no", "yes"), tokens=((6,), (5,)))
    keys = {
        one.key
        for one in (
            _ask([1, 2]),
            _ask([1, 3]),
            _ask([1, 2], model="other"),
            _ask([1, 2], decoding="paper"),
            _ask([1, 2], max_new_tokens=9),
            _ask([1, 2], decoding="choice", form=yes),
            _ask([1, 2], decoding="choice", form=no),
            _ask([1, 2], decoding="choice", form=Form(("yes", "no"), ((5,), (6,)), ranked=True)),
            _ask([1, 2], decoding="constrained", form=Form(grammar="start: A")),
            _ask([1, 2], decoding="constrained", form=Form(grammar="start: B")),
        )
    }
    assert len(keys) == 10


def test_greedy_does_not_depend_on_the_seed_and_the_papers_does() -> None:
    assert _ask([1, 2], seed=1).key == _ask([1, 2], seed=2).key
    assert _ask([1, 2]).seed is None
    one, two = (_ask([1, 2], decoding="paper", seed=seed) for seed in (1, 2))
    assert one.seed != two.seed
    assert one.max_new_tokens == 100


def test_prompt_digest_is_of_32_bit_little_endian_ids() -> None:
    import hashlib

    assert prompt_digest([1, 258]) == hashlib.sha256(b"\x01\0\0\0\x02\x01\0\0").hexdigest()


def test_units_hold_every_request_once_and_one_kind_each() -> None:
    draw = random.Random(1)
    asked = [
        _ask([draw.randrange(9) for _ in range(1 + n % 37)], max_new_tokens=8 if n % 2 else 100, model=str(n))
        for n in range(300)
    ]
    made = units("m", asked, workers=3)
    assert sorted(one.key for unit in made for one in unit.requests) == sorted(one.key for one in asked)
    assert all(len({one.max_new_tokens for one in unit.requests}) == 1 for unit in made)
    assert all(len(unit.requests) <= MOST_ROWS for unit in made)
    assert [unit.cost for unit in made] == sorted((unit.cost for unit in made), reverse=True)


def test_work_is_cut_for_the_workers_there_are() -> None:
    asked = [_ask([5] * 200 + [n]) for n in range(600)]
    few, many = units("m", asked, workers=1), units("m", asked, workers=8)
    assert 1 < len(few) < len(many)
    assert max(unit.cost for unit in many) < sum(map(cost, asked)) / 8


def test_prompts_that_begin_alike_are_in_one_unit() -> None:
    asked = [_ask([family] * 300 + [n]) for n in range(100) for family in (1, 2, 3, 4)]
    made = units("m", asked, workers=1)
    assert all(len({one.prompt_ids[0] for one in unit.requests}) <= 2 for unit in made)
    assert saved_share(asked) > 0.9
    assert saved_share([_ask([n]) for n in range(5)]) == 0
