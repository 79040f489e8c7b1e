"""A Plan as JSON on standard output, or as a table for people on standard error."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.table import Table

from ecellm.console import console
from ecellm.plan.estimate import GIB, Plan


def show(estimate: Plan, *, as_json: bool = False) -> None:
    """Print a plan."""
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(estimate), indent=1))
        return
    title = f"{estimate.base} on {estimate.gpus} x {estimate.gpu}"
    table = Table(title=title, box=None, title_justify="left")
    table.add_column("", justify="left")
    table.add_column("", justify="right")
    for name, value in _lines(estimate):
        table.add_row(name, value)
    console.print(table)
    for line in estimate.assumed:
        console.print(f"[dim]assumed: {line}[/dim]")


def _lines(plan: Plan) -> list[tuple[str, str]]:
    fits = "[green]fits[/green]" if plan.fits else "[red]does not fit[/red]"
    fewest = f"{plan.fewest_gpus}" if plan.fewest_gpus else "none: use a smaller micro-batch or a larger GPU"
    return [
        ("parameters, trained", f"{plan.parameters / 1e9:.3f} B, {plan.trained / 1e9:.3f} B"),
        ("weights, gradients, optimizer per GPU", _gib(plan.state)),
        ("gathered weights, whole gradients", f"{_gib(plan.gathered)}, {_gib(plan.gradients)}"),
        ("activations, logits", f"{_gib(plan.activations)}, {_gib(plan.logits)}"),
        ("memory per GPU, at the most", f"{_gib(plan.memory)} of {_gib(plan.gpu_memory)}: {fits}"),
        ("fewest GPUs of this kind", fewest),
        ("training rows, steps", f"{plan.rows:,}, {plan.steps:,}"),
        ("tokens", f"{plan.tokens / 1e6:,.1f} M"),
        ("time", f"{plan.hours[0]:.1f} to {plan.hours[1]:.1f} h"),
        ("GPU-hours", f"{plan.gpu_hours[0]:.0f} to {plan.gpu_hours[1]:.0f}"),
        ("cost", f"{plan.cost[0]:,.0f} to {plan.cost[1]:,.0f} USD"),
        ("one checkpoint", _gib(plan.checkpoint)),
        ("its upload", f"{plan.upload_seconds[0]:.0f} to {plan.upload_seconds[1]:.0f} s from {plan.nodes} nodes"),
        ("time to stop in (--signal, --stop-wait)", f"{plan.stop_seconds} s"),
        ("storage for the run", _gib(plan.kept)),
    ]


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
