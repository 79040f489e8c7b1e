"""The one console: everything a person watches goes to stderr through it, so that stdout stays for results.

Not a logger and not a place for results: `--json` and `--dry-run` print to stdout themselves.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

console = Console(stderr=True, highlight=False)
"""Writes to stderr; plain text without colours where stderr is no terminal."""


def stage(name: str, note: str = "") -> None:
    """Say that a stage begins: a ruled line with its name and, where given, a note."""
    title = f"[bold]{name}[/bold]" + (f"  [dim]{note}[/dim]" if note else "")
    console.rule(title, align="left", style="cyan")


def progress() -> Progress:
    """A progress display with count, time gone and time left; use it as a context manager."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(),
        console=console,
        transient=not console.is_terminal,
    )
