"""Jobs in a Slurm box as people submit them, and a run that is small enough for a test."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import cli_runs
from tests.cluster.box import ROOT, SlurmBox

RUN = (
    cli_runs.RUN.replace('engine = "plain"\nmax_steps = 2\nbatch_size = 4', "max_steps = 40\nbatch_size = 8")
    .replace("[train]", "[train]\nepochs = 1000\nevaluate_every = 100")
    .replace("train = 24", "train = 64")
    .replace("every = 2", "every = 10")
)
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@dataclass
class Job:
    """One batch job; `id` as Slurm names it."""

    box: SlurmBox
    id: str
    log: Path

    def state(self) -> tuple[str, int]:
        """(state, exit code) as Slurm says them."""
        said = self.box.run("scontrol", "show", "job", self.id, "-o").stdout
        found = re.search(r"JobState=(\S+).*ExitCode=(\d+):(\d+)", said)
        if not found:
            return "UNKNOWN", -1
        return found.group(1), int(found.group(2)) or 128 * bool(int(found.group(3))) + int(found.group(3))

    def wait(self, seconds: float) -> tuple[str, int]:
        """State and exit code at its end. Raises TimeoutError with the job's output."""
        deadline = time.monotonic() + seconds
        while (state := self.state())[0] not in OVER:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {self.id} is {state[0]} after {seconds:.0f} s\n{self.said()}")
            time.sleep(0.3)
        return state

    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def cause(self) -> str:
        """Its last line."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def until(self, text: str, seconds: float) -> None:
        """Wait for a text in its output."""
        deadline = time.monotonic() + seconds
        while text not in self.said():
            if time.monotonic() > deadline or self.state()[0] in OVER:
                raise TimeoutError(f"{text!r} was not said in {seconds:.0f} s\n{self.said()}")
            time.sleep(0.1)

    def restarts(self) -> int:
        """How often Slurm has started it again."""
        found = re.search(r"Restarts=(\d+)", self.box.run("scontrol", "show", "job", self.id, "-o").stdout)
        return int(found.group(1)) if found else 0


def submit(
    box: SlurmBox, folder: Path, script: str, *words: str, options: tuple[str, ...] = ("--nodes=2",), cwd: Path = ROOT,
    **environment: str,
) -> Job:  # fmt: skip
    """`sbatch OPTIONS slurm/SCRIPT.sbatch WORDS` from the checkout."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {
        "ECELLM_VENV": sys.prefix, "ECELLM_LOGS": str(folder / "logs"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "AWS_EC2_METADATA_DISABLED": "true", **environment,
    }  # fmt: skip
    log = folder / "job.out"
    path = script if script.startswith("/") else str(ROOT / "slurm" / f"{script}.sbatch")
    sent = ["sbatch", f"--output={log}", "--ntasks-per-node=1", "--cpus-per-task=1", *options, path, *words]
    done = box.run(*sent, cwd=cwd, **env)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Job(box, done.stdout.split()[-1], log)


def run_file(folder: Path, text: str = RUN, **out: str) -> str:
    """The small run's file in a folder that all nodes see."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.toml"
    path.write_text(text.replace('out = "out"', f'out = "{out.get("out", folder / "out")}"'))
    return str(path)


def steps(out: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; none where there is no file yet."""
    path = out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def checkpoints(out: Path) -> list[int]:
    """Steps of whole checkpoints."""
    return sorted(int(path.parent.name.removeprefix("step-")) for path in out.glob("checkpoints/*/COMPLETE"))
