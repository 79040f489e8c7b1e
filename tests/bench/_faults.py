"""The faults that `bring_up_faults` injects into real Slurm jobs: how each is made, and what an honest job says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ecellm.cluster.ports import BLOCKS, block_base
from tests.cluster.box import ROOT, SlurmBox
from tests.cluster.slurm_jobs import Job, submit

LISTEN = """
import socket, sys, time
held = []
for port in sys.argv[1:]:
    one = socket.socket(); one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("0.0.0.0", int(port))); one.listen(); held.append(one)
print("up", flush=True); time.sleep(600)
"""


@dataclass
class Place:
    """Where one fault is played: the box, a folder that all nodes see, a prepared run, and what must be undone."""

    box: SlurmBox
    folder: Path
    run: str
    prepared: Path
    undo: list[Callable[[], object]] = field(default_factory=list)

    def out(self) -> str:
        """A fresh copy of the prepared run's output, as an option."""
        target = self.folder / "out"
        shutil.copytree(self.prepared, target)
        return f"--out={target}"

    def python(self, script: str) -> str:
        """A stand-in virtual environment whose python runs `script` first; $node is where it runs."""
        home = self.folder / "venv"
        (home / "bin").mkdir(parents=True)
        path = home / "bin/python"
        real = f"{sys.prefix}/bin/python"
        path.write_text(f'#!/bin/bash\nnode=$SLURMD_NODENAME real={real}\n{script}\nexec $real "$@"\n')
        path.chmod(0o755)
        return str(home)

    def listen(self, node: str, ports: list[int]) -> None:
        """Have something listen on a node's ports."""
        words = [*self.box.enter(node), sys.executable, "-c", LISTEN, *map(str, ports)]
        held = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
        assert held.stdout is not None
        held.stdout.readline()
        self.undo += [lambda: os.killpg(held.pid, signal.SIGKILL), held.wait]

    def next_job(self) -> int:
        """Number of the job that will be submitted next."""
        state = self.box.run("sbatch", "--hold", "--wrap=true", "--output=/dev/null").stdout.split()[-1]
        self.box.run("scancel", state)
        return int(state) + 1


@dataclass(frozen=True)
class Fault:
    """One fault: what goes to sbatch, what is done to the job that runs, and the code and cause that are right."""

    name: str
    code: int
    cause: str
    words: Callable[[Place], list[str]] = lambda place: []
    env: Callable[[Place], dict[str, str]] = lambda place: {}
    during: Callable[[Place, Job], None] | None = None
    nodes: int = 2
    symmetric: bool = True
    """Whether the same fault can be played under `ray symmetric-run`."""
    seconds: float = 150


def kill_matching(pattern: str, node: str, number: str = "KILL") -> Callable[[Place, Job], None]:
    """Kill the processes of a node whose command line matches, once the run is at its first steps."""

    def act(place: Place, job: Job) -> None:
        wait_for_steps(place, job)
        place.box.within(node, "pkill", f"-{number}", "-f", pattern)  # the node's own process table, not the machine's

    return act


def wait_for_steps(place: Place, job: Job) -> None:
    """Until the first checkpoint is there."""
    deadline = time.monotonic() + 150
    while not list((place.folder / "out").glob("checkpoints/*/COMPLETE")):
        if time.monotonic() > deadline or job.state()[0] not in ("RUNNING", "PENDING"):
            raise TimeoutError(job.said())
        time.sleep(0.1)


def _fill(place: Place, node: str) -> dict[str, str]:
    place.box.within(node, "bash", "-c", "head -c 4200000000 /dev/zero >/tmp/filler 2>/dev/null; true")
    place.undo.append(lambda: place.box.within(node, "rm", "-f", "/tmp/filler"))
    return {}


def _copy_of_code(place: Place) -> str:
    other = place.folder / "other"
    shutil.copytree(ROOT / "ecellm", other / "ecellm")
    (other / "ecellm/records.py").write_text((ROOT / "ecellm/records.py").read_text() + "\n# another copy\n")
    return str(other)


def _busy(place: Place, blocks: range) -> dict[str, str]:
    job = place.next_job()
    place.listen("n1", [block_base(job, again) for again in blocks])
    return {}


def _bare(place: Place) -> list[str]:
    return [f"--out={place.folder / 'nothing'}"]


LONG = ["--train.max_steps=3000", "--checkpoint.every=50"]
RAY = '[ "$2" = ray.scripts.scripts ] || exec $real "$@"\n'
BEFORE = (
    Fault("no virtual environment", 2, "no Python at", env=lambda p: {"ECELLM_VENV": "/no/venv"}),
    Fault("virtual environment on one node only", 5, "node n2 cannot run this code", words=_bare,
          env=lambda p: {"ECELLM_VENV": p.python('[ "$node" = n1 ] || { echo no python here >&2; exit 127; }')}),
    Fault("no such run file", 2, "no such run file", words=lambda p: ["RUN:/no/run.toml"]),
    Fault("run file that is no TOML", 2, "not TOML", words=lambda p: [f"RUN:{_written(p, 'name = ')}"]),
    Fault("run file with an unknown key", 2, "unknown key", words=lambda p: [f"RUN:{_changed(p, 'epochz = 3')}"]),
    Fault("batch of fewer samples than workers", 2, "train.batch_size", words=lambda p: ["--train.batch_size=1"]),
    Fault("GPUs wanted, none granted", 2, "the run wants GPUs", words=lambda p: ["--cluster.gpus_per_worker=1"]),
    Fault("more workers than CPUs", 2, "99 workers", words=lambda p: ["--cluster.workers=99"]),
    Fault("OUT cannot be written", 4, "/proc/nowhere", words=lambda p: ["--out=/proc/nowhere"]),
    Fault("OUT is not shared by the nodes", 4, "node n2.*does not see", words=lambda p: ["--out=/tmp/own"]),
    Fault("no S3 endpoint", 4, "S3 does not answer", words=lambda p: ["--out=s3://bucket/x", "--storage.attempts=1"],
          env=lambda p: {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x",
                         "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}),
    Fault("no S3 credentials", 4, "cannot write", words=lambda p: ["--out=s3://bucket/x"],
          env=lambda p: {"AWS_DEFAULT_REGION": "us-east-1", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}),
    Fault("full /tmp on the head", 5, "no room|n1 has 0 MiB", words=_bare, env=lambda p: _fill(p, "n1")),
    Fault("full /tmp on a worker", 5, "node n2 has 0 MiB", words=_bare, env=lambda p: _fill(p, "n2")),
    Fault("wrong network interface", 5, "no such network interface", words=_bare, symmetric=False,
          env=lambda p: {"ECELLM_INTERFACE": "ib9"}),
    Fault("clock of a node two hours off", 5, "clocks of n1 and n2 are 7[12]\\d\\d s apart", words=_bare,
          env=lambda p: {"ECELLM_VENV": p.python('[ "$node" = n1 ] || exec faketime -f +2h $real "$@"')}),
    Fault("another copy of the code on a node", 5, "n2 has another copy of this code", words=_bare,
          env=lambda p: {"ECELLM_VENV": p.python(f'[ "$node" = n1 ] || cd {_copy_of_code(p)}')}),
    Fault("a node that hangs", 5, "n2 cannot run this code: it did not answer in time", words=_bare,
          env=lambda p: {"ECELLM_START_S": "12", "ECELLM_VENV": p.python('[ "$node" = n1 ] || sleep 600')}),
    Fault("every block of ports busy", 5, "no block of ports is free", words=_bare, symmetric=False,
          env=lambda p: _busy(p, range(BLOCKS))),
    Fault("no token shards", 3, "no complete token shards", words=_bare),
)  # fmt: skip
STARTING = (
    Fault("Ray cannot start on the head", 5, "Ray did not start on n1: no luck", words=_bare,
          env=lambda p: {"ECELLM_VENV": p.python(RAY + '[ "$node" = n2 ] || { echo no luck; exit 1; }')}),
    Fault("Ray cannot start on a worker", 5, "Ray did not start on n2: no luck", words=_bare,
          env=lambda p: {"ECELLM_VENV": p.python(RAY + '[ "$node" = n1 ] || { echo no luck; exit 1; }')}),
    Fault("a worker's Ray never comes", 5, "not whole after 15 s: 1 of 2 nodes", words=_bare,
          env=lambda p: {"ECELLM_START_S": "15", "ECELLM_VENV": p.python(RAY + '[ "$node" = n1 ] || exec sleep 600')}),
)  # fmt: skip
RUNNING = (
    Fault("busy port of the head", 0, "train is done", words=lambda p: [p.out()], symmetric=False,
          env=lambda p: _busy(p, range(1))),
    Fault("token and address of another Ray in the environment", 0, "train is done", words=lambda p: [p.out()],
          env=lambda p: {"RAY_AUTH_TOKEN": "another", "RAY_ADDRESS": "10.0.0.9:6379"}),
    Fault("worker dies at a step, none may be replaced", 5, "training failed in attempt 1 at step",
          words=lambda p: [p.out(), *LONG, "--cluster.max_failures=0"],
          during=kill_matching("[r]ay::.*TrainWorker", "n2")),
    Fault("worker dies at a step", 0, "train is done",
          words=lambda p: [p.out(), "--train.rehearse_failure_at=20", "--cluster.max_failures=1"]),
    Fault("driver dies", 5, "train was killed by signal 9", words=lambda p: [p.out(), *LONG],
          during=kill_matching("[j]obs.train", "n1")),
    Fault("head's Ray dies", 5, "Ray ended on n1 while the stage ran", words=lambda p: [p.out(), *LONG],
          during=kill_matching("[g]cs_server", "n1")),
    Fault("two clusters on a node", 0, "train is done", nodes=1, words=lambda p: [p.out()],
          during=lambda p, job: _second(p),
          env=lambda p: {"SBATCH_NODELIST": "n1"}, symmetric=False),
    Fault("head node dies and comes back", 0, "train is done", symmetric=False,
          during=lambda p, job: _head_dies(p, job),
          words=lambda p: [p.out(), "--train.max_steps=600", "--checkpoint.every=50"], seconds=300),
    Fault("a node's Ray dies and comes back", 0, "train is done", symmetric=False,
          words=lambda p: [p.out(), "--train.max_steps=600", "--checkpoint.every=50"],
          during=kill_matching("raylet/[r]aylet", "n2"), seconds=240),
)  # fmt: skip


def _written(place: Place, text: str) -> str:
    path = place.folder / "wrong.toml"
    path.write_text(text)
    return str(path)


def _changed(place: Place, line: str) -> str:
    return _written(place, Path(place.run).read_text().replace("[train]", f"[train]\n{line}"))


def _head_dies(place: Place, job: Job) -> None:
    """The node of the batch shell loses power, Slurm requeues the job, and the node comes back."""
    wait_for_steps(place, job)
    place.box.kill("n1")
    deadline = time.monotonic() + 120
    while job.state()[0] == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.5)
    place.box.start("n1")


def _second(place: Place) -> None:
    """Another job of its own on the same node, at the same time."""
    other = place.folder / "second"
    shutil.copytree(place.prepared, other / "out")
    job = submit(place.box, other, "train", place.run, f"--out={other / 'out'}", options=("--nodes=1", "--nodelist=n1"))
    assert job.wait(150) == ("COMPLETED", 0), job.said()


def clean_environment() -> None:
    """No AWS or Ray settings of whoever measures."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_"))]:
        del os.environ[name]
