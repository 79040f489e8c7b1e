"""Faults injected into real two-node Slurm jobs: does each end with the right exit code and a one-line cause?

Ours is `slurm/train.sbatch`; beside it the same fault under `ray symmetric-run` in a batch file of the same shape,
where it can be played. A job of ours is right when its exit code is the expected one and its last line matches the
expected cause. The other side has no convention for causes, so it is right when its code is 0 exactly where the run
did its work. The figure is the number of faults that ours told rightly. `ECELLM_BENCH_FAULTS` takes a regular
expression of names, `ECELLM_BENCH_SIDE` `ours` or `symmetric`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench._faults import BEFORE, RUNNING, STARTING, Fault, Place, clean_environment
from tests.cluster.box import ROOT, SlurmBox
from tests.cluster.slurm_jobs import Job, run_file, submit

SYMMETRIC = """#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
cd {root}
export PYTHONPATH={root} RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=60
python=${{ECELLM_VENV}}/bin/python
export PATH="{prefix}/bin:$PATH" # it runs `ray start` and `ray stop` by name
[ -n "${{RAY_AUTH_TOKEN:-}}" ] || export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --cpu-bind=none --mpi=none bash -c '
  [ "$SLURM_PROCID" = 0 ] || export RAY_gcs_rpc_server_reconnect_timeout_s=5
  exec "$@"' _ "$python" -m ray.scripts.scripts symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" \\
  --num-cpus=1 --object-store-memory=100000000 -- "$python" -m jobs.train "$@" --cluster.workers 2
"""


def run() -> dict[str, Any]:
    """Every fault on both sides."""
    wanted, side = os.environ.get("ECELLM_BENCH_FAULTS", "."), os.environ.get("ECELLM_BENCH_SIDE", "")
    faults = [fault for fault in (*BEFORE, *STARTING, *RUNNING) if re.search(wanted, fault.name)]
    clean_environment()
    table: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="ecfaults") as folder,
        SlurmBox(Path(folder).resolve() / "box", nodes=2, cpus=2, tmp="2g") as box,
    ):
        path = run_file(box.folder / "prepared")
        for stage in ("build", "prepare"):
            subprocess.run([sys.executable, "-m", f"jobs.{stage}", path], cwd=ROOT, check=True, capture_output=True)
        for number, fault in enumerate(faults):
            row: dict[str, Any] = {"fault": fault.name, "expected": fault.code}
            for name, play in (("ours", _ours), ("symmetric", _symmetric)):
                if side not in ("", name) or (name == "symmetric" and not fault.symmetric):
                    continue
                place = Place(box, box.folder / f"{name}{number}", path, box.folder / "prepared/out")
                place.folder.mkdir()
                row[name] = _played(play, place, fault)
            print(row, file=sys.stderr, flush=True)
            table.append(row)
    ours = [row["ours"]["right"] for row in table if "ours" in row]
    other = [row["symmetric"]["right"] for row in table if "symmetric" in row]
    return {
        "figure": sum(ours), "unit": f"faults told rightly, of {len(ours)}",
        "versus": f"ray symmetric-run: {sum(other)} of {len(other)}", "goal": len(ours), "holds": all(ours),
        "samples": table, "how": __doc__,
    }  # fmt: skip


def _played(play: Any, place: Place, fault: Fault) -> dict[str, Any]:
    begun = time.monotonic()
    try:
        found: dict[str, Any] = play(place, fault)
    except (TimeoutError, AssertionError) as trouble:
        lines = str(trouble).strip().splitlines() or [""]
        found = {"right": False, "code": None, "last": f"never ended: {lines[-1][:200]}"}
    finally:
        for undo in place.undo:
            undo()
        place.box.run("scancel", "--user=root")
        deadline = time.monotonic() + 30
        while place.box.run("squeue", "-h").stdout.strip() and time.monotonic() < deadline:
            time.sleep(0.3)
    return {**found, "seconds": round(time.monotonic() - begun, 1)}


def _sent(place: Place, fault: Fault, script: str) -> Job:
    environment = fault.env(place)
    words = fault.words(place)
    path = next((word[4:] for word in words if word.startswith("RUN:")), place.run)
    rest = [word for word in words if not word.startswith("RUN:")]
    job = submit(place.box, place.folder, script, path, *rest, options=(f"--nodes={fault.nodes}",), **environment)
    if fault.during:
        fault.during(place, job)
    return job


def _ours(place: Place, fault: Fault) -> dict[str, Any]:
    job = _sent(place, fault, "train")
    _, code = job.wait(fault.seconds)
    told = re.search(fault.cause, job.cause) is not None and job.cause.startswith("ray_up: ")
    return {"right": code == fault.code and told, "code": code, "last": job.cause[:300]}


def _symmetric(place: Place, fault: Fault) -> dict[str, Any]:
    script = place.folder / "symmetric.sbatch"
    script.write_text(SYMMETRIC.format(root=ROOT, prefix=sys.prefix))
    job = _sent(place, fault, str(script))
    _, code = job.wait(fault.seconds)
    worked = bool(list((place.folder / "out").glob("model/COMPLETE")))
    return {"right": (code == 0) == worked and worked == (fault.code == 0), "code": code, "worked": worked,
            "last": job.cause[:300]}  # fmt: skip
