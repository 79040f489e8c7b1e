"""The order of samples is a function, and a batch is dealt whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ecellm.data.order import batch_at, cut, pack, permutation, steps_per_epoch

small = st.integers(1, 60)


@given(n=small, batch=st.integers(1, 20), epoch=st.integers(0, 5), seed=st.integers(0, 9))
def test_every_epoch_holds_every_sample_once(n: int, batch: int, epoch: int, seed: int) -> None:
    steps = steps_per_epoch(n, batch)
    seen = [batch_at("f", seed, n, batch, epoch * steps + step) for step in range(steps)]
    assert sorted(np.concatenate(seen)) == list(range(n))
    assert [len(part) for part in seen[:-1]] == [batch] * (steps - 1)


def test_order_depends_on_each_key_and_nothing_else() -> None:
    first = batch_at("f", 1, 100, 10, 3).tolist()
    permutation.cache_clear()
    assert batch_at("f", 1, 100, 10, 3).tolist() == first
    others = [batch_at("g", 1, 100, 10, 3), batch_at("f", 2, 100, 10, 3), batch_at("f", 1, 100, 10, 13)]
    assert all(other.tolist() != first for other in others)


def test_order_stays_the_same_over_releases() -> None:
    assert permutation("f", 1, 8, 0).tolist() == [2, 5, 3, 6, 1, 7, 4, 0]


def test_a_late_step_costs_one_permutation() -> None:
    permutation.cache_clear()
    batch_at("f", 1, 1000, 8, 10**9)
    assert permutation.cache_info().misses == 1


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=70),
    world=st.sampled_from([1, 2, 3, 4, 7]),
    micro=st.integers(1, 9),
)
def test_cut_is_the_same_multiset_at_any_world_size(lengths: list[int], world: int, micro: int) -> None:
    numbers = np.arange(len(lengths))
    dealt = cut(numbers, np.array(lengths), world, micro)
    assert len(dealt) == world
    assert len({len(rank) for rank in dealt}) == 1
    parts = [part for rank in dealt for part in rank]
    assert max(len(part) for part in parts) <= micro
    assert sorted(np.concatenate(parts)) == list(numbers)
    assert len(dealt[0]) == -(-len(lengths) // (world * micro))


@given(lengths=st.lists(st.integers(1, 500), min_size=12, max_size=12))
def test_ranks_work_on_similar_lengths(lengths: list[int]) -> None:
    dealt = cut(np.arange(12), np.array(lengths), 2, 2)
    at = np.array(lengths)
    for earlier, later in zip(range(2), range(1, 3), strict=True):
        shortest = min(at[rank[earlier]].min() for rank in dealt)
        assert all(at[rank[later]].max() <= shortest for rank in dealt)


def test_cut_ignores_the_order_of_the_batch() -> None:
    lengths = np.array([5, 5, 5, 9, 1])
    one, other = (cut(np.array(batch), lengths, 2, 1) for batch in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]))
    assert [[part.tolist() for part in rank] for rank in one] == [[part.tolist() for part in rank] for rank in other]


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=70),
    world=st.sampled_from([1, 2, 3, 4, 7]),
    budget=st.integers(300, 1500),
)
def test_pack_is_the_same_multiset_at_any_world_size(lengths: list[int], world: int, budget: int) -> None:
    at = np.array(lengths)
    dealt = pack(np.arange(len(at)), at, world, budget)
    assert len(dealt) == world
    assert len({len(rank) for rank in dealt}) == 1
    rows = [row for rank in dealt for row in rank]
    assert sorted(np.concatenate(rows)) == list(range(len(at)))
    assert all(at[row].sum() <= budget for row in rows)
    # LPT: two rows that could not be one; so at most one micro-step more than if samples were sand, and then some
    assert len(dealt[0]) <= 2 * -(-at.sum() // (world * budget)) + 1


def test_rows_are_full_and_even() -> None:
    at = np.random.default_rng(1).lognormal(5.0, 0.6, 128).astype(int) + 30
    dealt = pack(np.arange(128), at, 4, 2048)
    loads = np.array([[at[row].sum() for row in rank] for rank in dealt])
    assert loads.shape[1] == -(-loads.sum() // (4 * 2048))
    assert loads.min() > 0.9 * loads.max()
    assert (loads.max(axis=0) / loads.min(axis=0)).max() < 1.05


def test_pack_ignores_the_order_of_the_batch() -> None:
    lengths = np.array([5, 5, 5, 9, 1])
    one, other = (pack(np.array(batch), lengths, 2, 12) for batch in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]))
    assert [[row.tolist() for row in rank] for rank in one] == [[row.tolist() for row in rank] for rank in other]


def test_a_sample_longer_than_a_row_has_one_of_its_own() -> None:
    dealt = pack(np.arange(3), np.array([50, 4, 5]), 1, 10)
    assert sorted(row.tolist() for row in dealt[0]) == [[0], [2, 1]]
