"""The board: orders reach the workers, a group that hangs names its ranks, a new attempt forgets what passed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ecellm.errors import ClusterError, DataError, StorageError
from ecellm.train.board import CHECKPOINT, RESUME, START, Board, Order, Status


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def begun(clock: Clock, ranks: int = 4) -> Board:
    board = Board(clock)
    board.begin(1, {rank: f"node{rank // 2}" for rank in range(ranks)})
    return board


def test_the_most_urgent_order_stands_until_it_is_carried_out() -> None:
    board = begun(Clock())
    assert board.beat(0, 1, "data") is Order.GO
    board.order(Order.STOP)
    board.order(Order.MOVE)
    assert board.beat(0, 1, "data") is Order.STOP
    board.begin(2, {0: "node0"})
    assert board.beat(0, 1, "data") is Order.STOP


@pytest.mark.parametrize("orders", [(Order.STOP, Order.ABORT), (Order.ABORT, Order.STOP)])
def test_a_stop_outlives_a_group_that_hangs(orders: tuple[Order, Order]) -> None:
    board = begun(Clock())
    for order in orders:
        board.order(order)
    assert board.beat(0, 1, "data") is Order.ABORT
    for attempt in (2, 3):
        board.begin(attempt, {0: "node0"})
        assert board.beat(0, 1, "data") is Order.STOP


def test_a_new_group_needs_not_hang_again() -> None:
    board = begun(Clock())
    board.order(Order.ABORT)
    board.begin(2, {0: "node0"})
    assert board.beat(0, 1, "data") is Order.GO


def test_state_that_is_read_or_written_by_any_rank_is_told() -> None:
    board = begun(Clock())
    seen = []
    for phase in (START, "data", RESUME, "update", CHECKPOINT, "sum over ranks"):
        board.beat(0, 3, "sum over ranks")
        board.beat(1, 3, phase)
        seen.append(board.snapshot().storing)
    assert seen == [True, False] * 3


def test_a_new_group_needs_not_move_again() -> None:
    board = begun(Clock())
    board.order(Order.MOVE)
    board.move()
    assert board.snapshot().moved
    board.begin(2, {0: "node0"})
    assert not board.snapshot().moved
    assert board.beat(0, 5, "data") is Order.GO
    assert board.snapshot().workers == 1


def test_a_group_that_beats_but_does_not_get_on_is_still() -> None:
    clock = Clock()
    board = begun(clock)
    for second in range(100):
        clock.now = float(second)
        for rank in range(4):
            board.beat(rank, 7, "sum over ranks" if rank != 2 else "forward and backward")
    snapshot = board.snapshot()
    assert (snapshot.silent, snapshot.still) == (0.0, 99.0)
    assert board.hanging() == "rank 2 in forward and backward of step 7; ranks 0, 1, 3 in sum over ranks of step 7"
    clock.now += 1
    board.update(Status(step=7))
    assert board.snapshot().still == 0.0


def test_ranks_that_are_not_heard_of_come_first() -> None:
    clock = Clock()
    board = begun(clock)
    for rank in range(3):
        board.beat(rank, 2, "update")
    clock.now = 40.0
    board.beat(0, 2, "update")
    assert board.hanging() == "ranks 1, 2, 3 not heard of; rank 0 in update of step 2"


def test_errors_that_may_pass_are_forgotten_by_the_next_attempt() -> None:
    board = begun(Clock())
    board.fail(1, StorageError("the bucket is busy"))
    board.fail(0, ClusterError("a worker died"))
    assert board.failure() is None
    board.begin(2, {0: "a"})
    assert not board.snapshot().errors
    final = DataError("step 3: NaN")
    board.fail(0, final)
    board.begin(3, {0: "a"})
    assert board.failure() is final


def test_notes_are_handed_over_once() -> None:
    board = begun(Clock())
    board.say("hello")
    assert board.snapshot().notes == ("hello",)
    assert board.snapshot().notes == ()
