"""What people see at the end of an evaluation: the primary metric of every system and task, strict rule."""

from __future__ import annotations

from rich.table import Table

from ecellm.console import console
from ecellm.evaluate.rows import Groups
from ecellm.evaluate.scores import Scores


def show(scores: dict[str, Scores], groups: Groups, *, made_up: bool = False) -> None:
    """A table for each setting, a column for each task; of rules, the best of each family.

    `made_up`: the rows are, and it is said.
    """
    for setting in dict.fromkeys(setting for setting, _ in groups):
        title = f"{setting}: primary metric, strict rule" + (", made-up data" if made_up else "")
        # Ten tasks and a name fit into 80 columns; a screen that is narrower loses no digit.
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
        tasks = [name for of, name in groups if of == setting]
        table.add_column("", no_wrap=True, overflow="ellipsis")
        for name in tasks:
            table.add_column(name, justify="right", no_wrap=True, min_width=5)
        table.add_row("rows", *(str(len(groups[setting, name])) for name in tasks), style="dim")
        for label, systems in _lines(scores):
            cells = [_best(scores, systems, setting, name) for name in tasks]
            if any(cells):
                table.add_row(label, *cells)
        console.print(table)


def _lines(scores: dict[str, Scores]) -> list[tuple[str, list[str]]]:
    """(label, systems) of each line: models one by one, then each family of rules."""
    families = dict.fromkeys(name.split("/")[0] for name in scores if "/" in name)
    own = [(name, [name]) for name in scores if "/" not in name]
    return own + [(f"best {one}", [name for name in scores if name.startswith(f"{one}/")]) for one in families]


def _best(scores: dict[str, Scores], systems: list[str], setting: str, task: str) -> str:
    """The highest value that any of these systems has; blank where none has one."""
    cells = [scores[system].get(setting, {}).get(task) for system in systems]
    values = [cell["strict"].get(cell["primary"]) for cell in cells if cell]
    known = [value for value in values if value is not None]
    return f"{max(known):.3f}" if known else ""
