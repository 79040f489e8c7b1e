"""All commands on one app; each group of commands is a file."""

from __future__ import annotations

import typer

from ecellm.cli import checkpoints, cluster, data, score, stages, submit, tools

app = typer.Typer(
    name="ecellm",
    help="From raw e-commerce data to an instruction-tuned, scored generalist model on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
stages.add_to(app)
score.add_to(app)
tools.add_to(app)
submit.add_to(app)
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(data.app, name="data")
app.add_typer(cluster.app, name="cluster")
