"""All work in this process, one piece after another: for small sources, and as the yardstick of the other way."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ecellm.ecinstruct.flow.job import Feed
from ecellm.errors import EcellmError

Work = dict[str, Any]
"""What to do, in JSON."""
Do = Callable[[Work], dict[str, Any]]
Then = Callable[[Work, dict[str, Any]], Sequence[Work]]
"""(work, its facts) -> what can be done now that it is."""
ReadPieces = Callable[[Feed], Iterator[Any]]
ScatterPiece = Callable[[Feed, int, Any], dict[str, Any]]


class Here:
    """Runs work in this process."""

    workers = 1

    def scatter(
        self, feeds: Sequence[Feed], pieces: ReadPieces, do: ScatterPiece
    ) -> Iterable[tuple[int, int, dict[str, Any] | EcellmError]]:
        """(feed, piece, facts) of every piece of every file; an error of the family ends its file, not the others."""
        for feed in feeds:
            number = -1
            try:
                for number, place in enumerate(pieces(feed)):
                    yield feed.number, number, do(feed, number, place)
            except EcellmError as error:
                yield feed.number, number + 1, error

    def work(self, first: Sequence[Work], do: Do, then: Then) -> None:
        """Do all works, and those that follow them."""
        waiting = deque(first)
        while waiting:
            work = waiting.popleft()
            waiting.extend(then(work, json.loads(json.dumps(do(work)))))
