"""What a task family tells the flow: which records it takes, what it keeps of each, and its stages up to the samples.

A family serves one task, or several that share their first steps (the three search tasks, the two question tasks). Its
functions are pure but for the desk they are handed; they never see a file, a worker or the order of the raw lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa

from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.samples import Sample

if TYPE_CHECKING:
    from ecellm.ecinstruct.flow.desk import Desk


@dataclass(slots=True)
class At:
    """Where a record came from, and which tasks of the family may use it."""

    source: str
    """Label of its file, as rows and the card show it."""
    tasks: tuple[str, ...]
    group: str
    """Category of the file or record."""
    domain: str
    """`IND`, `OOD`, or `HELD`: in-domain here, and held out by another task (mend `clean_ood`)."""
    split: str = ""
    """The source's own."""
    place: int = 0
    """A number that orders all records of the run by file and line."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. `each`: `run(desk, part)` for every part; `once`: `run(desk)`, with a view of all parts."""

    name: str
    kind: Literal["each", "once"]
    run: Callable[..., None]
    offers: tuple[str, ...] = ()
    """Tasks whose samples it offers, to be drawn at the end; the first step offers those of no stage."""


BETWEEN = "\x1e"


class Candidate(NamedTuple):
    """A sample as it waits in the drawing order: `key` is its place in it."""

    key: int
    input: str
    output: str
    klass: str
    source: str
    slot: str
    entities: str
    """Joined by `BETWEEN`."""
    options: str | None
    labels: str | None

    @property
    def entity_list(self) -> tuple[str, ...]:
        """The entities one by one."""
        return tuple(self.entities.split(BETWEEN)) if self.entities else ()

    def sample(self, task: str) -> Sample:
        """The candidate as a sample."""
        return Sample(task=task, input=self.input, output=self.output, options=self.options, option_labels=self.labels,
                      entities=self.entity_list, source=self.source, slot=self.slot)  # fmt: skip


CANDIDATES = pa.schema(
    [
        ("key", pa.uint64()), ("input", pa.string()), ("output", pa.string()), ("klass", pa.string()),
        ("source", pa.string()), ("slot", pa.string()), ("entities", pa.string()), ("options", pa.string()),
        ("labels", pa.string()),
    ]
)  # fmt: skip
ORDER = pa.schema([("pool", pa.string()), ("group", pa.string()), ("place", pa.uint64()), ("note", pa.string())])
"""For the paper's draws: where each sample stands in the authors' order. `note` is what its draw needs to know."""
Admit = Callable[["Desk", str, Candidate], bool]
"""(desk, pool, candidate) -> whether it is of the pool, where several draw from one stream."""


def _all_stages(recipe: Recipe) -> tuple[Stage, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Family:
    """A task family."""

    name: str
    tasks: tuple[str, ...]
    takes: tuple[type, ...]
    scatter: Callable[[Desk, Any, At], None]
    """Keeps what is needed of one record: the first step, for every record of the family's files."""
    tables: Mapping[str, pa.Schema]
    stages: Callable[[Recipe], tuple[Stage, ...]] = _all_stages
    streams: Mapping[str, str] = field(default_factory=dict)
    """Pool -> the stream of candidates that it draws from, where that has another name."""
    paper_stream: str = ""
    """The one stream that all pools of `paper` draw from, where it is one."""
    admit: Admit | None = None
    render: Callable[[Desk, Candidate], Candidate | None] | None = None
    """Finishes a candidate that was drawn, where making it in full before would be costly; None: it cannot be."""
    one_answer: Mapping[str, bool] = field(default_factory=dict)
    """Task -> whether equal inputs must have equal answers; yes where not said."""

    def stream(self, recipe: Recipe, pool: str) -> str:
        """The stream of candidates of a pool."""
        return (recipe.paper and self.paper_stream) or self.streams.get(pool, pool)

    def drawn_from(self, recipe: Recipe, task: str) -> str:
        """The stage that offers a task's samples."""
        return next((stage.name for stage in self.stages(recipe) if task in stage.offers), "scatter")

    def last(self, recipe: Recipe) -> str:
        """The last stage."""
        return next((stage.name for stage in reversed(self.stages(recipe))), "scatter")
