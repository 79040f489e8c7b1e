"""The same work on Ray: raw files stream through Ray Data in pieces, on all cores of a machine or a cluster.

Reading a file is one task that yields pieces; keeping what is needed of a piece is another. So one big packed file,
which can only be read from front to back, still keeps all cores busy, and Ray holds back the reader when the others
are slow: memory does not grow with the files. Later work is a Ray task each, as soon as what it follows is done.
Nothing that is passed back is larger than some counts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

import ecellm.errors
from ecellm.config.schema import Run
from ecellm.ecinstruct.flow.ahead import ahead
from ecellm.ecinstruct.flow.here import Do, ReadPieces, ScatterPiece, Then, Work
from ecellm.ecinstruct.flow.job import Feed
from ecellm.errors import ClusterError, EcellmError
from ecellm.session import cluster_address, ray_session
from ecellm.sources.lines import Chunk, File, RowGroups
from ecellm.sources.web import bare

READERS = 2
"""Files that are read at once for each two cores; reading is unpacking, keeping is the work."""
PIECES = pa.schema([("feed", pa.int64()), ("piece", pa.int64()), ("kind", pa.string()), ("said", pa.string()),
                    ("data", pa.large_binary())])  # fmt: skip
FACTS = pa.schema([("number", pa.int64()), ("piece", pa.int64()), ("said", pa.string())])


class Cluster:
    """Runs work on Ray. Use as a context; Ray is there from the first `scatter` to its end."""

    def __init__(self, run: Run, workers: int) -> None:
        self._run, self.workers = run, workers
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *trouble: Any) -> None:
        self._stack.close()

    def scatter(
        self, feeds: Sequence[Feed], pieces: ReadPieces, do: ScatterPiece
    ) -> Iterable[tuple[int, int, dict[str, Any] | EcellmError]]:
        """(feed, piece, facts or fault) of every piece of every file, in any order."""
        slowest_first = sorted(feeds, key=lambda feed: (not bare(feed.part.location).endswith(".gz"), feed.number))
        # Ray begins at one end and this process at the other; a cluster that is joined is there at once.
        with ahead([] if cluster_address(self._run) else slowest_first[::-1], pieces, do) as enough:
            self._stack.enter_context(ray_session(self._run, cpus=self.workers))
            for found in self._scatter(slowest_first, pieces, do):
                enough.set()
                yield found

    def _scatter(
        self, feeds: Sequence[Feed], pieces: ReadPieces, do: ScatterPiece
    ) -> Iterator[tuple[int, int, dict[str, Any] | EcellmError]]:
        ray_data = _ray_data()
        blocks = [pa.table({"at": [at]}) for at in range(len(feeds))]
        by_number = {feed.number: feed for feed in feeds}
        listed = tuple(feeds)

        def read(block: pa.Table) -> Iterator[pa.Table]:
            for at in block["at"].to_pylist():
                yield from _pieces(listed[at], pieces)

        def keep(block: pa.Table) -> pa.Table:
            return _kept(block, by_number, do)

        read_many = max(READERS, self.workers * READERS // 2)
        try:
            stream = (
                ray_data.from_arrow(blocks)
                .map_batches(read, batch_size=None, batch_format="pyarrow", num_cpus=0,
                             compute=ray_data.TaskPoolStrategy(min(len(blocks), read_many)))
                .map_batches(keep, batch_size=None, batch_format="pyarrow", num_cpus=1)
            )  # fmt: skip
            for row in stream.iter_rows():
                said = json.loads(row["said"])
                fault = said.get("fault")
                yield row["number"], row["piece"], _error(fault) if fault else said
        except Exception as error:
            raise _cause(error) from error

    def work(self, first: Sequence[Work], do: Do, then: Then) -> None:
        """Do all works, and those that follow them. Raises the work's own error, or ClusterError."""
        import ray

        perform = ray.remote(num_cpus=1)(_performed)
        what = ray.put(do)
        waiting: dict[Any, Work] = {}

        def ask(works: Sequence[Work]) -> None:
            waiting.update({perform.remote(what, work): work for work in works})

        try:
            ask(first)
            while waiting:
                [done], _ = ray.wait(list(waiting))
                ask(then(waiting.pop(done), json.loads(ray.get(done))))
        except Exception as error:
            raise _cause(error) from error


def _performed(do: Do, work: Work) -> str:
    return json.dumps(do(work))


def _ray_data() -> Any:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1 << 20  # a piece is a block of its own
    for name in ("progress", "execution.streaming_executor", "logging"):  # they tell of every run
        logging.getLogger(f"ray.data._internal.{name}").setLevel(logging.ERROR)
    return ray.data


def _pieces(feed: Feed, pieces: ReadPieces) -> Iterator[pa.Table]:
    """A file's pieces as blocks of one row, and its fault, if it has one, as the last."""
    number = -1
    try:
        for number, place in enumerate(pieces(feed)):
            data = place.data if isinstance(place, Chunk) else None
            yield _block(feed, number, type(place).__name__, json.dumps(_said(place)), data)
    except EcellmError as error:
        yield _block(feed, number + 1, "fault", json.dumps(_fault(error)), None)


def _said(place: Chunk | File | RowGroups) -> list[Any]:
    if isinstance(place, Chunk):
        return [place.location, place.first]
    return [place.location] if isinstance(place, File) else [place.location, place.first, place.start, place.stop]


def _block(feed: Feed, piece: int, kind: str, said: str, data: bytes | None) -> pa.Table:
    return pa.table([[feed.number], [piece], [kind], [said], [data]], schema=PIECES)


def _kept(block: pa.Table, feeds: dict[int, Feed], do: ScatterPiece) -> pa.Table:
    found = []
    for row in block.to_pylist():
        said = json.loads(row["said"])
        if row["kind"] == "fault":
            facts = {"fault": said}
        else:
            try:
                facts = do(feeds[row["feed"]], row["piece"], _place(row["kind"], said, row["data"], do))
            except EcellmError as error:
                facts = {"fault": _fault(error)}
        found.append({"number": row["feed"], "piece": row["piece"], "said": json.dumps(facts)})
    return pa.Table.from_pylist(found, FACTS)


def _place(kind: str, said: list[Any], data: bytes | None, do: Any) -> Chunk | File | RowGroups:
    if kind == "Chunk":
        return Chunk(said[0], said[1], data or b"")
    settings = do.job.storage
    return File(said[0], settings) if kind == "File" else RowGroups(said[0], said[1], said[2], said[3], settings)


def _fault(error: EcellmError) -> dict[str, str]:
    return {"kind": type(error).__name__, "what": error.what, "found": error.found, "expected": error.expected,
            "mend": error.mend}  # fmt: skip


def _error(said: dict[str, str]) -> EcellmError:
    kind: type[EcellmError] = getattr(ecellm.errors, said["kind"])
    return kind(said["what"], found=said["found"], expected=said["expected"], mend=said["mend"])


def _cause(error: BaseException) -> BaseException:
    """Our own error within what Ray raised; of Ray's errors a ClusterError; any other as it is."""
    from ray.exceptions import RayError

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, EcellmError) and not isinstance(inner, RayError):  # Ray makes classes that are both
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    if not isinstance(error, RayError):
        return error
    return ClusterError(
        "a Ray worker failed while building rows",
        found=str(error).strip().splitlines()[-1],
        expected="workers with memory for one part of a table",
        mend="look at the worker's log; give the workers more memory if it ran out, and run again",
    )
