"""`ecellm checkpoints list|verify|prune OUT`: what is in storage, whether it is whole, what may go."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ecellm.config.schema import Checkpoint
from ecellm.console import console, note
from ecellm.errors import CheckpointError, StorageError
from ecellm.storage.base import join
from ecellm.storage.open import open_storage

app = typer.Typer(help="What is in storage, whether it is whole, what may go.", no_args_is_help=True)
Out = Annotated[str, typer.Argument(metavar="OUT", help="A run's output: a folder or an s3:// prefix.")]


@app.command("list")
def list_them(out: Out) -> None:
    """Checkpoints with their steps, sizes and states."""
    from ecellm.checkpoint.layout import step_folder
    from ecellm.checkpoint.restore import steps

    storage = open_storage(out)
    whole, half = steps(storage)
    if not whole and not half:
        if next(iter(storage.list("")), None) is None:
            raise StorageError(f"{storage.root} holds nothing", expected="a run's output", mend="check the path of OUT")
        console.print(f"no checkpoints under {join(storage.root, 'checkpoints')}")
        return
    for step in sorted({*whole, *half}):
        files = list(storage.list(step_folder(step)))
        state = "complete" if step in whole else "unfinished"
        typer.echo(f"{step_folder(step)}\t{state}\t{len(files)} files\t{sum(size for _, size in files)} bytes")


@app.command()
def attempts(out: Out) -> None:
    """Attempts at the run: when each began, with how many workers, and how it ended."""
    from ecellm.train.attempts import history

    said = history(open_storage(out))
    if not said:
        console.print(f"no attempts under {join(out, 'attempts')}")
    for one in said:
        facts = (one.get("begun", ""), f"{one.get('workers', '?')} workers", one.get("ended", "running"))
        typer.echo("\t".join([f"attempt {one['attempt']}", *facts, one.get("reason", "")]))


@app.command()
def verify(out: Out) -> None:
    """Read every complete checkpoint whole and compare sizes and digests with its manifest."""
    from ecellm.checkpoint.layout import step_folder
    from ecellm.checkpoint.restore import steps
    from ecellm.checkpoint.restore import verify as faults_of

    storage = open_storage(out)
    whole, half = steps(storage)
    if not whole:
        raise CheckpointError(
            f"no complete checkpoint under {join(storage.root, 'checkpoints')}",
            found=f"{len(half)} unfinished" if half else "none",
            mend="check OUT, or train until the first checkpoint",
        )
    table = Table(box=None, pad_edge=False)
    for column in ("checkpoint", "state"):
        table.add_column(column)
    broken = []
    for step in whole:
        faults = faults_of(storage, step_folder(step))
        table.add_row(step_folder(step), "[red]" + "; ".join(faults) + "[/red]" if faults else "[green]whole[/green]")
        broken += [step_folder(step)] if faults else []
    console.print(table)
    if broken:
        raise CheckpointError(
            f"{len(broken)} of {len(whole)} checkpoints are not whole",
            found=", ".join(broken),
            mend="training goes on from the newest whole one by itself; delete the broken folders to free their space",
        )


@app.command()
def prune(
    out: Out,
    keep: Annotated[int, typer.Option(min=2, help="Newest complete checkpoints to keep.")] = Checkpoint().keep,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would go.")] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="Read those that stay and compare digests, not their sizes alone.")
    ] = False,
) -> None:
    """Remove checkpoints that may go: all but the newest whole ones, and unfinished ones older than those.

    Whole is what has its manifest and all files in their sizes; what is not whole is named and does not count as kept.
    """
    from ecellm.checkpoint.layout import step_folder
    from ecellm.checkpoint.restore import steps
    from ecellm.checkpoint.restore import verify as faults_of
    from ecellm.checkpoint.retain import to_remove
    from ecellm.stage import clear

    storage = open_storage(out)
    marked, half = steps(storage)
    whole: list[int] = []
    broken: list[int] = []
    for step in reversed(marked):
        if len(whole) == keep:
            break
        faults = faults_of(storage, step_folder(step), digests=digests)
        (broken if faults else whole).append(step)
        if faults:
            typer.echo(f"{step_folder(step)}\tnot whole\t{'; '.join(fault.splitlines()[0] for fault in faults)}")
    # Those that were not looked at are older than `keep` whole ones.
    going = to_remove([step for step in marked if step not in broken], half, keep)
    if whole:
        going = sorted([*going, *(step for step in broken if step < whole[-1])])
    if not going:
        console.print("nothing may go")
    for step in going:
        size = sum(size for _, size in storage.list(step_folder(step)))
        if yes:
            clear(storage, step_folder(step))
        typer.echo(f"{step_folder(step)}\t{'removed' if yes else 'may go'}\t{size} bytes")
    if going and not yes:
        note("nothing was removed; add --yes to remove these")
