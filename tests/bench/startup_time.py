"""From `sbatch` and from `ray job submit` to the first training step: how long, and where it goes.

Two in-a-box Slurm nodes with one worker each, and a Ray head on loopback with two workers; the run is prepared already.
Every moment is read from what the job itself writes: its log, the logs of Ray, and the checkpoint of step 1.
No goal is set: the figure is the time from `sbatch` to the first step in seconds, against that from `ray job submit`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.box import ROOT, SlurmBox
from tests.cluster.head import Head
from tests.cluster.slurm_jobs import Job, run_file, submit


def run() -> dict[str, Any]:
    """Both ways, once each after a warm file cache."""
    with tempfile.TemporaryDirectory(prefix="ecstart") as folder:
        at = Path(folder).resolve()
        slurm = _slurm(at / "box")
        ray = _ray(at / "ray")
    return {
        "figure": slurm["first step"], "unit": "s from sbatch to the first step", "versus": ray["first step"],
        "goal": None,
        "holds": True, "samples": {"sbatch, two nodes": slurm, "ray job submit": ray}, "how": __doc__,
    }  # fmt: skip


def _prepared(at: Path) -> str:
    path = run_file(at)
    for stage in ("build", "prepare"):
        subprocess.run([sys.executable, "-m", f"jobs.{stage}", path], cwd=ROOT, check=True, capture_output=True)
    return path


def _moments(begun: float, said: Callable[[], str], marks: dict[str, str], seconds: float = 240) -> dict[str, float]:
    """Seconds from `begun` at which each mark was first seen in a growing text."""
    found: dict[str, float] = {}
    while len(found) < len(marks):
        text = said()
        for name, pattern in marks.items():
            if name not in found and re.search(pattern, text):
                found[name] = round(time.monotonic() - begun, 1)
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{set(marks) - set(found)} was not seen\n{text}")
        time.sleep(0.05)
    return found


def _slurm(at: Path) -> dict[str, float]:
    with SlurmBox(at, nodes=2, cpus=2) as box:
        path = _prepared(at / "run")
        begun = time.monotonic()
        job: Job = submit(box, at / "job", "train", path, "--checkpoint.every", "1")
        logs = at / "job" / "logs"

        def said() -> str:
            head = "".join(log.read_text() for log in logs.glob("*/ray-*.log"))
            checked = "CHECKED\n" if any(logs.glob("*/ray-*.log")) else ""
            started = "RAY STARTED\n" if "Ray runtime started" in head else ""
            first = "FIRST\n" if _stepped(Path(path).parent / "out") else ""
            return job.said() + checked + started + first + ("JOB\n" if job.said() or any(logs.glob("*")) else "")

        marks = {
            "the batch script runs": "JOB", "nodes are checked": "CHECKED", "the head has started": "RAY STARTED",
            "Ray is whole": "is whole", "the stage runs": "▸ train", "workers and model are up": "attention: ",
            "first step": "FIRST",
        }  # fmt: skip
        found = _moments(begun, said, marks)
        job.wait(120)
        return found


def _ray(at: Path) -> dict[str, float]:
    path = _prepared(at)
    with Head(dashboard=True, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)) as head:
        env = os.environ | {"PYTHONPATH": str(ROOT), "RAY_API_SERVER_ADDRESS": head.jobs}
        log = at / "job.out"
        words = [
            "ray", "job", "submit", "--no-wait", "--address", head.jobs, "--working-dir", str(at), "--", sys.executable,
            "-m", "jobs.train", path, "--checkpoint.every", "1", "--cluster.workers", "2",
        ]  # fmt: skip
        begun = time.monotonic()
        with log.open("w") as out:
            subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *words[1:]], env=env, stdout=out, check=True)
        name = re.findall(r"raysubmit_\w+", log.read_text())[0]
        follow = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "job", "logs", "-f", "--address", head.jobs, name],
            env=env, stdout=log.open("a"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        accepted = round(time.monotonic() - begun, 1)
        try:
            marks = {"the stage runs": "▸ train", "workers and model are up": "attention: ", "first step": "FIRST"}
            found = _moments(begun, lambda: log.read_text() + ("FIRST" if _stepped(at / "out") else ""), marks)
        finally:
            follow.terminate()
            follow.wait()
    return {"Ray has taken the job": accepted, **found}


def _stepped(out: Path) -> bool:
    """Whether the first step was done: its checkpoint begins right after it."""
    return (out / "checkpoints").exists()
