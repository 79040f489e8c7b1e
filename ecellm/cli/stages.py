"""The stage commands: RUN.toml, `--section.key value` overrides, `--dry-run`.

Stages are imported only past the dry run, which needs neither torch nor Ray nor the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer

from ecellm.config.load import load_run
from ecellm.config.schema import Run
from ecellm.errors import ConfigError

WORK = {
    "build": ("ecellm.ecinstruct.build", "Raw sources, or the published data set, to rows."),
    "prepare": ("ecellm.data.prepare", "Rows to token shards."),
    "train": ("ecellm.train.launch", "Token shards to checkpoints and an exported model."),
    "evaluate": ("ecellm.evaluate.run", "Model and rows to predictions and scores."),
    "pipeline": ("ecellm.pipeline", "All stages in order, each skipped when complete."),
}
ANY_OPTION = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Overrides look like unknown options; `load_run` is the one that knows them."""

RunFile = Annotated[str, typer.Argument(metavar="RUN.toml", help="The run file; jobs/runs/ has some.")]
Words = Annotated[list[str], typer.Argument(metavar="RUN.toml", help="The run file; jobs/runs/ has some.")]
"""With overrides among them, in any order."""
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the run file, print the resolved one, and leave.")]


def add_to(app: typer.Typer) -> None:
    """Add the stage commands, `report` and `quickstart`."""
    app.command(help="The whole pipeline at toy size on this machine.", context_settings=ANY_OPTION)(quickstart)
    for name, (module, text) in WORK.items():
        app.command(name, help=text, context_settings=ANY_OPTION)(_door(name, module))
    app.command(help="Scores of one or more runs to report.html and report.md.", context_settings=ANY_OPTION)(report)


def _door(name: str, module: str) -> Callable[..., None]:
    def command(ctx: typer.Context, words: Words, dry_run: DryRun = False) -> None:
        places, overrides = _places_and_overrides([*words, *ctx.args])
        if not places:
            raise ConfigError("no run file", found=" ".join(words), expected="RUN.toml [--section.key value …]")
        run = load_run(places[0], [*places[1:], *overrides])
        if dry_run:
            _print(run)
            return
        if os.environ.get("ECELLM_LOCK"):  # set by `ecellm submit`: the lock file travelled with this code
            import_module("ecellm.cluster.lock").check(".")
        getattr(import_module(module), name)(run)

    return command


def quickstart(
    ctx: typer.Context,
    out: Annotated[str, typer.Option("--out", help="Where everything goes.")] = "",
    dry_run: DryRun = False,
) -> None:
    """The whole pipeline at toy size."""
    from ecellm.pipeline import quickstart as go
    from ecellm.pipeline import quickstart_file

    words = [*ctx.args, *(["--out", out] if out else [])]
    run = load_run(quickstart_file(), words)
    if dry_run:
        _print(run)
        return
    go(run)


def report(
    ctx: typer.Context,
    outs: Annotated[list[str], typer.Argument(metavar="OUT...", help="Outputs of runs, or their run files.")],
    dry_run: DryRun = False,
) -> None:
    """Scores of one or more runs to report.html and report.md, in the first one's output."""
    places, words = _places_and_overrides([*outs, *ctx.args])
    runs = {place: load_run(place, words) for place in places if place.endswith(".toml")}
    if words and not runs:
        raise ConfigError(f"overrides without a run file: {' '.join(words)}", expected="RUN.toml, or OUT alone")
    if not places:
        raise ConfigError("nothing to report on", expected="one or more OUT folders or RUN.toml files")
    if dry_run and len(runs) == 1 == len(places):
        _print(runs[places[0]])
        return
    resolved = [runs[place].out if place in runs else place for place in places]
    if dry_run:
        typer.echo(json.dumps({"outs": resolved}))
        return
    import_module("ecellm.report.run").report(resolved)


def _places_and_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    places: list[str] = []
    overrides: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            places.append(word)
            continue
        overrides.append(word)
        if "=" not in word and queue and not queue[0].startswith("--"):
            overrides.append(queue.pop(0))
    return places, overrides


def _print(run: Run) -> None:
    said: dict[str, Any] = run.model_dump(mode="json")
    typer.echo(json.dumps(said, indent=2, ensure_ascii=False))
