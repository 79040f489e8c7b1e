"""What people see at the end of an evaluation: the primary metric of every task and system, strict rule."""

from __future__ import annotations

from rich.table import Table

from ecellm.console import console
from ecellm.evaluate.rows import Groups
from ecellm.evaluate.scores import Scores


def show(scores: dict[str, Scores], groups: Groups, *, made_up: bool = False) -> None:
    """A table for each setting; of rules, the best of each family. `made_up`: the rows are, and it is said."""
    own = [name for name in scores if "/" not in name]
    families = list(dict.fromkeys(name.split("/")[0] for name in scores if "/" in name))
    for setting in dict.fromkeys(setting for setting, _ in groups):
        title = f"{setting}: primary metric, strict rule" + (", made-up data" if made_up else "")
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in ("task", "n", *own, *(f"best {family}" for family in families)):
            left = column == "task" or column.startswith("best")
            table.add_column(column, justify="left" if left else "right", no_wrap=True)
        _fill(table, [group for group in groups if group[0] == setting], scores, own, families)
        console.print(table)


def _fill(
    table: Table, groups: list[tuple[str, str]], scores: dict[str, Scores], own: list[str], families: list[str]
) -> None:
    """A line for each task."""
    for setting, name in groups:
        cells = {system: found[setting][name] for system, found in scores.items() if name in found.get(setting, {})}
        if not cells:
            continue
        any_cell = next(iter(cells.values()))
        values = {system: cell["strict"].get(cell["primary"]) for system, cell in cells.items()}
        known = {system: value for system, value in values.items() if value is not None}
        line = [f"{known[system]:.3f}" if system in known else "" for system in own]
        for family in families:
            mine = [system for system in known if system.startswith(f"{family}/")]
            best = max(mine, key=known.__getitem__, default="")
            line.append(f"{known[best]:.3f} {best.removeprefix(f'{family}/')}" if best else "")
        table.add_row(name, str(any_cell["n"]), *line)
