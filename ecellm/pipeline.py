"""All stages in order. Each stage decides itself whether its artefact is complete, and then returns at once.

Not a scheduler and no second home of any stage's logic: what `ecellm pipeline` does is what the commands do one by one.
"""

from __future__ import annotations

import importlib.util
import os
import time
from importlib import import_module
from typing import Any

from ecellm.config.schema import Run
from ecellm.console import console
from ecellm.errors import ConfigError
from ecellm.storage.base import join

STAGES = (
    ("build", "ecellm.ecinstruct.build"),
    ("prepare", "ecellm.data.prepare"),
    ("train", "ecellm.train.launch"),
    ("evaluate", "ecellm.evaluate.run"),
)
WHAT = {
    "build": "ten tasks of instruction rows from raw files that are made up (no real shop, product or person)",
    "prepare": "render and tokenise the rows with Ray Data",
    "train": "two Ray Train workers, DeepSpeed ZeRO-3; one worker is killed half-way, and the run comes back",
    "evaluate": "the tuned model, its untuned self and rules without a model answer the test rows",
    "report": "tables beside the paper, curves, failures",
}


def pipeline(run: Run, *, narrate: bool = False) -> dict[str, Any]:
    """Build, prepare, train, evaluate and report. Returns what each stage returned, by its name.

    Raises:
        EcellmError: of the stage that failed; what earlier stages finished stays.
    """
    facts: dict[str, Any] = {}
    times: dict[str, float] = {}
    for name, module in STAGES:
        if narrate:
            console.print(f"\n[bold]{len(facts) + 1}/5 {name}[/bold]  [dim]{WHAT[name]}[/dim]")
        begun = time.monotonic()
        facts[name] = getattr(import_module(module), name)(run)
        times[name] = time.monotonic() - begun
    if narrate:
        console.print(f"\n[bold]5/5 report[/bold]  [dim]{WHAT['report']}[/dim]")
    begun = time.monotonic()
    facts["report"] = import_module("ecellm.report.run").report([run.out])
    times["report"] = time.monotonic() - begun
    _closing(run, facts, times)
    return facts


def quickstart(run: Run) -> dict[str, Any]:
    """The pipeline on the quickstart run file, with a word on each stage."""
    console.print("[bold]ecellm quickstart[/bold]: from raw data to a scored model and a report, at toy size")
    console.print(f"[dim]everything goes to {run.out}; stop it whenever you like and start it again[/dim]")
    return pipeline(run, narrate=True)


def quickstart_file() -> str:
    """The quickstart's run file, as installed with the package. Raises ConfigError where it is not."""
    found = importlib.util.find_spec("jobs")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = os.path.join(folder, "runs", "quickstart.toml")
        if os.path.exists(path):
            return path
    raise ConfigError("jobs/runs/quickstart.toml is not installed", mend="install the package again: pip install -e .")


def _closing(run: Run, facts: dict[str, Any], times: dict[str, float]) -> None:
    spent = "  ".join(
        f"{name} {seconds:.0f} s" + (" (was complete)" if _skipped(facts[name]) else "")
        for name, seconds in times.items()
    )
    console.print(f"\n[bold green]done[/bold green]  {spent}")
    console.print(f"  report  {join(run.out, 'report.html')}")
    console.print(f"  model   {join(run.out, 'model')}")


def _skipped(facts: object) -> bool:
    return isinstance(facts, dict) and bool(facts.get("skipped"))
