"""`plan`, `export` and `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from ecellm.cli.stages import ANY_OPTION, RunFile
from ecellm.config.load import load_run


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        help="Memory per GPU, steps, time and checkpoint bytes, before anything is spent.", context_settings=ANY_OPTION
    )(plan)
    app.command(help="A Hugging Face folder from a checkpoint, on a CPU machine.")(export)
    app.command(help="What this machine has, and the mend for what is missing.")(doctor)


def plan(
    ctx: typer.Context,
    run_file: RunFile,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of one machine; 0: the workers of the run.")] = 0,
    gpu: Annotated[str, typer.Option(help="Kind of GPU, as H100 or A100-80GB.")] = "A100-80GB",
    tokens_per_sample: Annotated[int, typer.Option(min=1, help="Mean prompt and answer, in tokens.")] = 400,
    price: Annotated[float, typer.Option(min=0, help="USD of a GPU and hour; 0: a range from a table.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate a training run."""
    from ecellm.plan import plan as estimate
    from ecellm.plan import show

    run = load_run(run_file, ctx.args)
    gpus = nodes * gpus_per_node if gpus_per_node else max(nodes, run.cluster.workers)
    found = estimate(
        run, gpus=gpus, gpu=gpu, tokens_per_sample=tokens_per_sample, nodes=nodes if gpus_per_node else 0, price=price
    )  # fmt: skip
    show(found, as_json=as_json)


def export(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="OUT/checkpoints/step-…, a folder or s3://.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the Hugging Face folder goes.")],
    base: Annotated[str, typer.Option(help="Folder of the adapters' base model, if it is not where it was.")] = "",
) -> None:
    """Export a checkpoint, adapters merged into their base model."""
    from ecellm.checkpoint.export import base_of_adapters
    from ecellm.checkpoint.export import export as write
    from ecellm.config.schema import Storage
    from ecellm.model.base import folder_of
    from ecellm.storage.open import open_storage

    settings = Storage()
    if not base and (named := base_of_adapters(checkpoint, settings)):
        out = checkpoint.rstrip("/").rpartition("/checkpoints/")[0] or "."
        base = folder_of(named[0], open_storage(out, settings), settings, named[1])
    write(checkpoint, folder, settings, base)


def doctor(
    s3: Annotated[str, typer.Option(help="An s3:// prefix to reach.")] = "",
) -> None:
    """Look at this machine; exit code 5 where an essential part is missing, 4 where it is S3 alone."""
    from ecellm.doctor import examine, show

    if missing := show(examine(s3)):
        raise typer.Exit(4 if missing == ["S3"] else 5)
