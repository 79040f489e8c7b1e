"""Requests are named by content; the plan loses none and keeps its bound."""

from ecellm.evaluate.plan import batches
from ecellm.evaluate.requests import Request, prompt_digest, request


def _ask(ids: list[int], **other: object) -> Request:
    settings = {"model": "m", "decoding": "greedy", "max_new_tokens": 8, "seed": 1} | other
    return request(ids, **settings)  # type: ignore[arg-type]


def test_the_key_is_the_content() -> None:
    assert _ask([1, 2]) == _ask([1, 2])
    keys = {
        one.key
        for one in (
            _ask([1, 2]),
            _ask([1, 3]),
            _ask([1, 2], model="other"),
            _ask([1, 2], decoding="paper"),
            _ask([1, 2], max_new_tokens=9),
        )
    }
    assert len(keys) == 5


def test_greedy_does_not_depend_on_the_seed_and_the_papers_does() -> None:
    assert _ask([1, 2], seed=1).key == _ask([1, 2], seed=2).key
    assert _ask([1, 2]).seed is None
    one, two = (_ask([1, 2], decoding="paper", seed=seed) for seed in (1, 2))
    assert one.seed != two.seed
    assert one.max_new_tokens == 100


def test_prompt_digest_is_of_32_bit_little_endian_ids() -> None:
    import hashlib

    assert prompt_digest([1, 258]) == hashlib.sha256(b"\x01\0\0\0\x02\x01\0\0").hexdigest()


def test_batches_hold_every_request_once_within_the_bound() -> None:
    asked = [_ask(list(range(1, 2 + n % 37)), max_new_tokens=8 if n % 2 else 100, model=str(n)) for n in range(150)]
    made = batches(asked, 120)
    assert sorted(one.key for batch in made for one in batch) == sorted(one.key for one in asked)
    assert all(len(batch) * max(len(one.prompt_ids) for one in batch) <= 120 for batch in made)
    assert all(len({one.max_new_tokens for one in batch}) == 1 for batch in made)


def test_a_prompt_beyond_the_bound_goes_alone() -> None:
    assert [len(batch) for batch in batches([_ask(list(range(50))), _ask([1])], 20)] == [1, 1]
