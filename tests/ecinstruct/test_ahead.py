"""Pieces that the driver scatters while Ray starts: in order, until it is enough, and a fault costs only its file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ecellm.ecinstruct.flow.ahead import ahead
from ecellm.errors import DataError

FEEDS: Any = ["broken", "long", "never"]


def pieces(feed: Any) -> Iterator[Any]:
    yield from range(2 if feed == "broken" else 1000)


def test_a_fault_ends_its_file_and_the_event_ends_it_all() -> None:
    done: list[tuple[Any, int]] = []
    far, told = threading.Event(), threading.Event()

    def do(feed: Any, number: int, place: Any) -> dict[str, Any]:
        done.append((feed, number))
        if feed == "broken":
            raise DataError("a line is bad", found="x", expected="y", mend="z")
        if number == 5:
            far.set()
            assert told.wait(30)
        return {}

    with ahead(FEEDS, pieces, do) as enough:
        assert far.wait(30)
        enough.set()
        told.set()
    assert done == [("broken", 0), *(("long", number) for number in range(6))]


def test_an_error_in_the_block_is_raised_when_the_thread_has_ended() -> None:
    begun, ended = threading.Event(), []

    def do(feed: Any, number: int, place: Any) -> dict[str, Any]:
        begun.set()
        ended.append(number)
        return {}

    try:
        with ahead(FEEDS[1:], pieces, do):
            assert begun.wait(30)
            raise DataError("Ray did not start", found="x", expected="y", mend="z")
    except DataError:
        before = len(ended)
    assert not any(thread.name == "ahead" for thread in threading.enumerate())
    assert len(ended) == before
