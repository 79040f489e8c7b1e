"""What people see while a run goes on: one console on standard error, so that standard output stays data."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False, soft_wrap=True)


def stage(title: str, detail: str = "") -> None:
    """Announce a stage."""
    console.print(f"[bold cyan]▸ {title}[/]" + (f"  [dim]{detail}[/]" if detail else ""))


def note(text: str) -> None:
    """One quiet line below a stage."""
    console.print(f"  {text}")


def progress() -> Progress:
    """A progress display with time spent and time left; plain lines are left to the log where there is no screen."""
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[extra]}"),
        console=console,
        transient=False,
        disable=not console.is_terminal,
    )
