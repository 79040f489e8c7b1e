"""All work in this process, one piece after another: for small sources, and as the yardstick of the other way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ecellm.ecinstruct.flow.job import Feed
from ecellm.errors import EcellmError

Work = dict[str, Any]
"""What to do, in JSON."""
Do = Callable[[Work], dict[str, Any]]
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

    def run(self, works: Sequence[Work], do: Do) -> list[dict[str, Any]]:
        """The facts of every work, in order."""
        return [json.loads(json.dumps(do(work))) for work in works]

    def close(self) -> None:
        """Nothing to close."""
