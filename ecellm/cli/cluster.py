"""`ecellm cluster …`: what launch scripts call, so that every judgement and every message is ours and tested.

People use `sbatch slurm/*.sbatch`, `ecellm submit` and the files of `cluster/`; these are their parts.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from ecellm.cli.stages import ANY_OPTION, RunFile
from ecellm.config.load import load_run
from ecellm.config.overrides import read_overrides
from ecellm.console import note
from ecellm.errors import ClusterError, ConfigError

app = typer.Typer(help="Parts that launch scripts call: checks of nodes, readiness, the watch for notices.")


@app.command(context_settings=ANY_OPTION)
def begin(
    ctx: typer.Context, run_file: RunFile, job: Annotated[str, typer.Option(help="Name of this attempt.")]
) -> None:
    """Check the run file and write the file that all nodes must see."""
    from ecellm.cluster.bringup import begin as write

    canary = write(load_run(run_file, ctx.args), job)
    typer.echo("\n".join((canary.out, canary.key, canary.nonce)))


@app.command(context_settings=ANY_OPTION)
def judge(
    ctx: typer.Context,
    run_file: RunFile,
    canary: Annotated[str, typer.Option(help="File with what `begin` printed.")],
    said: Annotated[str, typer.Option(help="File with the nodes' lines.")],
    heard: Annotated[str, typer.Option(help="File with the nodes' standard error.")],
    names: Annotated[str, typer.Option(help="Nodes by comma, the head first.")],
    job: Annotated[int, typer.Option(help="Number that the ports are derived from.")],
    stage: Annotated[str, typer.Option(help="What will run.")] = "pipeline",
    notice: Annotated[int, typer.Option(help="Seconds between Slurm's notice and the time limit.")] = 300,
) -> None:
    """Compare what the nodes said, and print bash assignments for a Ray over them."""
    from ecellm.cluster.bringup import Canary, shell, short_notice
    from ecellm.cluster.bringup import judge as compare

    out, key, nonce = _text(canary).splitlines()
    given, _ = read_overrides(ctx.args)
    run = load_run(run_file, ctx.args)
    plan = compare(
        run, Canary(out=out, key=key, nonce=nonce), _text(said), _text(heard), names.split(","), job, set(given)
    )  # fmt: skip
    granted = load_run(run_file, [*plan.overrides, *ctx.args])  # the batch must divide among as many workers
    saves = stage in ("train", "pipeline")
    sys.stdout.write(shell(plan, short_notice(granted, plan.nodes, notice) if saves else ""))


@app.command()
def ready(
    nodes: Annotated[int, typer.Option(min=1)],
    cpus: Annotated[int, typer.Option(min=0)] = 0,
    gpus: Annotated[int, typer.Option(min=0)] = 0,
    seconds: Annotated[float, typer.Option(help="Longest wait.")] = 300.0,
    address: Annotated[str, typer.Option(help="HOST:PORT of the head; RAY_ADDRESS where not given.")] = "",
) -> None:
    """Wait until the cluster has what it was asked to have."""
    from ecellm.cluster.ready import wait_ready

    wait_ready(address or os.environ["RAY_ADDRESS"], nodes=nodes, cpus=cpus, gpus=gpus, seconds=seconds)


class Cloud(StrEnum):
    """Whose notices are read."""

    auto = "auto"
    aws = "aws"
    gcp = "gcp"


@app.command()
def watch(
    cloud: Annotated[Cloud, typer.Option(help="Whose metadata service; auto: the one that answers.")] = Cloud.auto,
    address: Annotated[str, typer.Option(help="HOST:PORT of the head; else RAY_ADDRESS.")] = "",
    period: Annotated[float, typer.Option(min=0.1, help="Seconds between two questions.")] = 5.0,
) -> None:
    """Wait on a spot node for the cloud's notice, and drain the node when it comes."""
    from ecellm.cluster import notices
    from ecellm.cluster import watch as watching

    address = address or os.environ.get("RAY_ADDRESS", "")
    if not address:
        raise ConfigError("no address of the head", expected="--address HOST:PORT, or RAY_ADDRESS")
    try:
        service = notices.service(cloud.value)
    except notices.NoService as trouble:
        raise ClusterError(
            "no metadata service answers", found=str(trouble), expected="a machine of AWS or GCP",
            mend="elsewhere there is nothing to watch: leave this command out",
        ) from trouble  # fmt: skip
    node = watching.node_id(address)
    note(f"watching {type(service).__name__} for node {node}")
    watching.watch(service, watching.drainer(address, node, note), period=period, say=note)


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
