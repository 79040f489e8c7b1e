"""Worked examples before a prompt, for models that have not learnt the tasks.

The examples of a task are the same for every row, drawn from the training rows by the seed alone: a fair comparison
needs no luck of the draw, and a beginning that all prompts share is computed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from ecellm.records import Row
from ecellm.tasks.registry import task
from ecellm.tasks.template import Template

END = "\n\n"
"""Stands after each example's answer, so a model that has no end of its own writes it after its answer too."""
Known = Callable[[str], Sequence[Row]]
"""Published task name -> its training rows."""


class Examples:
    """Draws examples for each task once, as they are needed."""

    def __init__(self, known: Known, seed: int) -> None:
        self._known, self._seed = known, seed
        self._drawn: dict[str, list[Row]] = {}

    def of(self, name: str, wanted: int) -> list[Row]:
        """Examples of a task, answers as different from one another as the draw allows."""
        if name not in self._drawn:
            self._drawn[name] = sorted(self._known(name), key=self._place)
        rows = self._drawn[name]
        by_answer: dict[str, list[Row]] = {}
        for row in rows:
            by_answer.setdefault(row.output.strip(), []).append(row)
        # One of each answer before a second of any, in the order of the draw.
        turns = max((len(group) for group in by_answer.values()), default=0) if len(by_answer) <= wanted else 1
        ordered = [group[turn] for turn in range(turns) for group in by_answer.values() if turn < len(group)]
        return ordered[:wanted]

    def prompts(self, row: Row, wanted: int, template: Template) -> Iterator[str]:
        """The row's prompt behind `wanted` examples, behind one less, and so on; the last has none."""
        of = task(row.task)
        shown = self.of(of.name, wanted) if wanted else []
        for n in range(len(shown), -1, -1):
            before = "".join(f"{of.render(one, template)}{one.output}{END}" for one in shown[:n])
            yield before + of.render(row, template)

    def _place(self, row: Row) -> bytes:
        return hashlib.sha256(f"example {self._seed} {row.id}".encode()).digest()
