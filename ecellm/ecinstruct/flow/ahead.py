"""Work of a build that this process does while Ray starts, which takes as long as to scatter some hundred megabytes.

A piece that is done is found done by whoever comes to it later, so nothing is handed over, and nothing depends on how
far this went. What goes wrong here is left alone: Ray's workers come to the same piece, and they tell.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ecellm.ecinstruct.flow.here import ReadPieces, ScatterPiece
from ecellm.ecinstruct.flow.job import Feed
from ecellm.sources.lines import File

GIVEN_UP_S = 30.0
"""Longest wait for the piece that the thread is in, in seconds; a worker does it again, to the same bytes."""


@contextmanager
def ahead(feeds: Sequence[Feed], pieces: ReadPieces, do: ScatterPiece) -> Iterator[threading.Event]:
    """Scatter pieces of these files, in this order, in a thread; it ends when the event is set, or the block."""
    enough = threading.Event()
    thread = threading.Thread(target=_scatter, args=(feeds, pieces, do, enough), name="ahead", daemon=True)
    thread.start()
    try:
        yield enough
    finally:
        enough.set()
        thread.join(GIVEN_UP_S)


def _scatter(feeds: Sequence[Feed], pieces: ReadPieces, do: ScatterPiece, enough: threading.Event) -> None:
    for feed in feeds:
        try:
            for number, place in enumerate(pieces(feed)):
                if enough.is_set():
                    return
                if not isinstance(place, File):  # that may take minutes, and cannot be shared
                    do(feed, number, place)
        except Exception:  # a worker comes to the same piece, and tells
            continue
