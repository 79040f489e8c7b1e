"""`sbatch slurm/pipeline.sbatch` over two Slurm nodes, undisturbed and stopped in five ways: the same loss and scores?

Each run trains with ZeRO-3 on one worker of each node, evaluates on both and ends COMPLETED. Disturbed, each once,
after the first checkpoint: a real time limit whose signal Slurm sends two minutes ahead, the same signal to the batch
shell by hand, `scancel --signal` to the steps, `scontrol requeue`, and a node that is killed and comes back. Two runs
are the same when the last loss differs by at most 1e-5 and every score is equal; the figure is the largest difference
of the last loss. `ECELLM_BENCH_RUN` names another run file (the default is a shorter quickstart: 100 steps, fewer
rows; the whole one takes seven minutes a run on two cores); `ECELLM_BENCH_WAYS` takes a regular expression of ways.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.box import ROOT, SlurmBox
from tests.cluster.slurm_jobs import Job, checkpoints, steps, submit

SHORT = (
    "--train.max_steps=100", "--checkpoint.every=20", "--train.rehearse_failure_at=0", "--build.sizes.train=300",
    "--build.sizes.test=24", "--build.sizes.ood=24", "--sources.made_up.products=1500", "--sources.made_up.users=700",
    "--sources.made_up.queries=700", "--sources.made_up.questions=4000", '--build.task_sizes={}',
    '--evaluate.systems=["tuned"]',
)  # fmt: skip
LONG = ("--train.rehearse_failure_at=0", '--evaluate.systems=["tuned"]')


def _time_limit(box: SlurmBox, job: Job) -> None:
    """The limit is drawn in, so that it lies one to two minutes ahead; Slurm looks at limits every 30 s."""
    spent = re.search(r"RunTime=(\d+):(\d+):", box.run("scontrol", "show", "job", job.id, "-o").stdout)
    minutes = int(spent.group(1)) * 60 + int(spent.group(2)) if spent else 0
    box.run("scontrol", "update", f"JobId={job.id}", f"TimeLimit={minutes + 2}")
    deadline = time.monotonic() + 150
    while not job.restarts() and job.state()[0] in ("PENDING", "RUNNING") and time.monotonic() < deadline:
        time.sleep(0.5)
    box.run("scontrol", "update", f"JobId={job.id}", "TimeLimit=60")  # the next start may take as long as it likes


def _batch_signal(box: SlurmBox, job: Job) -> None:
    box.run("scancel", "--batch", "--signal=USR1", job.id)  # what --signal=B:USR1@N sends


def _steps_signal(box: SlurmBox, job: Job) -> None:
    box.run("scancel", "--signal=USR1", job.id)


def _requeue(box: SlurmBox, job: Job) -> None:
    box.run("scontrol", "requeue", job.id)


def _node_killed(box: SlurmBox, job: Job) -> None:
    box.kill("n2")
    deadline = time.monotonic() + 120
    while job.state()[0] == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.5)
    box.start("n2")


WAYS: dict[str, Callable[[SlurmBox, Job], None]] = {
    "time limit": _time_limit, "scancel --batch --signal": _batch_signal, "scancel --signal": _steps_signal,
    "scontrol requeue": _requeue, "killed node": _node_killed,
}  # fmt: skip
OPTIONS = {"time limit": ("--nodes=2", "--time=60", "--signal=B:USR1@120")}


def run() -> dict[str, Any]:
    """An undisturbed run, then each way."""
    run_file = os.environ.get("ECELLM_BENCH_RUN", "")
    words = LONG if run_file else SHORT
    run_file = run_file or str(ROOT / "jobs/runs/quickstart.toml")
    wanted = os.environ.get("ECELLM_BENCH_WAYS", ".")
    with (
        tempfile.TemporaryDirectory(prefix="ecslurm") as folder,
        SlurmBox(Path(folder).resolve() / "box", nodes=2, cpus=2) as box,
    ):
        quiet = _run(box, "undisturbed", run_file, words, None)
        samples = [quiet]
        for name, disturb in WAYS.items():
            if re.search(wanted, name):
                samples.append(_run(box, name, run_file, words, disturb))
    others = samples[1:]
    apart = [abs(one["loss"] - quiet["loss"]) for one in others]
    for one in others:
        one["same scores"] = one.pop("scores") == quiet["scores"]
    nodes = all(one["state"] == "COMPLETED" and one["workers"] == [2] for one in samples)
    same = all(gap <= 1e-5 for gap in apart) and all(one["same scores"] and one["restarts"] for one in others)
    quiet.pop("scores")
    return {
        "figure": max(apart, default=0.0), "unit": "largest difference of the last loss",
        "versus": "an undisturbed run",
        "goal": 1e-5, "holds": nodes and same, "samples": samples, "how": __doc__,
    }  # fmt: skip


def _run(
    box: SlurmBox, name: str, run_file: str, words: tuple[str, ...], disturb: Callable[[SlurmBox, Job], None] | None
) -> dict[str, Any]:
    at = box.folder / name.replace(" ", "-")
    out = at / "out"
    begun = time.monotonic()
    options = OPTIONS.get(name, ("--nodes=2",))
    job = submit(box, at, "pipeline", run_file, f"--out={out}", *words, options=options)
    if disturb:
        deadline = time.monotonic() + 400
        while not checkpoints(out):
            if time.monotonic() > deadline:
                raise TimeoutError(job.said())
            time.sleep(0.2)
        time.sleep(2)
        disturb(box, job)
    state, code = job.wait(500)
    if state != "COMPLETED":
        print(job.said(), file=sys.stderr)
    lines = steps(out)
    found = {
        "way": name, "state": state, "code": code, "restarts": job.restarts(), "steps": len(lines),
        "loss": lines[-1]["loss"], "workers": sorted({line["workers"] for line in lines}),
        "scores": json.loads((out / "scores.json").read_text()), "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    print({key: value for key, value in found.items() if key != "scores"}, file=sys.stderr, flush=True)
    return found
