"""`ecellm submit STAGE RUN.toml`: a stage on a Ray cluster from where you sit. Its exit code becomes this command's."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated

import typer

from ecellm.cli.stages import ANY_OPTION, WORK, RunFile
from ecellm.config.load import load_run
from ecellm.console import console, note
from ecellm.errors import ConfigError

STAGES = (*WORK, "report")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        help="Run a stage on a Ray cluster, follow it, and end with its exit code.", context_settings=ANY_OPTION
    )(submit)


def submit(
    ctx: typer.Context,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help=f"One of {', '.join(STAGES)}.")],
    run_file: RunFile,
    address: Annotated[str, typer.Option(help="Job server, as http://HEAD:8265; else RAY_API_SERVER_ADDRESS.")] = "",
    working_dir: Annotated[str, typer.Option(help="Folder that travels with the job.")] = ".",
    detach: Annotated[bool, typer.Option("--detach", help="Leave once it is sent.")] = False,
    stop_wait: Annotated[int, typer.Option(help="Seconds to save in when stopped; 0: from the plan.")] = 0,
    start_wait: Annotated[int, typer.Option(min=1, help="Seconds to wait for room on the cluster.")] = 900,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the job; may be given again.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Build the lock file's environment there (slow).")] = False,
    any_versions: Annotated[bool, typer.Option("--any-versions", help="Take whatever versions are there.")] = False,
) -> None:
    """Submit, follow, and leave with the stage's exit code. Ctrl-C or SIGTERM stops the job, which saves first."""
    from ecellm.cluster.submit import Job, connect, follow
    from ecellm.cluster.submit import submit as send
    from ecellm.plan import stop_seconds

    if stage not in STAGES:
        raise ConfigError(f"unknown stage {stage!r}", expected=f"one of {', '.join(STAGES)}")
    run = load_run(run_file, ctx.args)
    job = Job(
        stage=stage, run_file=run_file, overrides=tuple(ctx.args), folder=working_dir,
        stop_s=stop_wait or stop_seconds(run), start_s=start_wait, environment=_pairs(env or []), install=install,
        any_versions=any_versions,
    )  # fmt: skip
    job.runtime_env(), job.entrypoint  # their faults come before any connection
    client = connect(address)
    name, there = send(client, job, run)
    note(f"job {name} {'runs already' if there else 'is sent'}; it has {job.stop_s} s to save when it is stopped")
    if detach:
        typer.echo(name)
        return
    stop = threading.Event()
    _on_signals(stop, name)
    code = follow(client, name, job, stop, _show)
    if code:
        raise typer.Exit(code)


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _on_signals(stop: threading.Event, name: str) -> None:
    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            console.print(f"left alone: job {name} goes on ending by itself (ray job status {name})")
            raise KeyboardInterrupt
        stop.set()
        console.print("asked to stop: the job saves first; the same signal again leaves without waiting")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, ask)


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env {word!r}", expected="NAME=VALUE")
        pairs[name] = value
    return pairs
