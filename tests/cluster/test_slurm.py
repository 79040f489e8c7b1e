"""Real `sbatch` over two Slurm nodes: what a job says when it cannot start, and a run that is stopped and goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.box import ROOT, SlurmBox
from tests.cluster.slurm_jobs import Job, checkpoints, run_file, steps, submit


def ended(job: Job, code: int, cause: str) -> None:
    """It failed with this code, and its last line names the cause."""
    state = job.wait(120)
    assert state == ("FAILED", code), job.said()
    assert re.search(rf"^ray_up: exit code {code}: .*{cause}", job.cause), job.said()


def test_outside_a_job_it_says_how_to_submit() -> None:
    script = f"source {ROOT}/slurm/ray_up.sh; ray_up train x.toml"
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert "no Slurm job; submit with: sbatch slurm/train.sbatch" in done.stderr


@pytest.mark.parametrize("script", ["train", "evaluate", "pipeline"])
def test_the_batch_files_ask_for_what_stopping_needs(script: str) -> None:
    text = (ROOT / f"slurm/{script}.sbatch").read_text()
    for line in ("--requeue", "--open-mode=append", "--signal=B:USR1@"):
        assert f"#SBATCH {line}" in text
    assert "gpus" not in re.sub(r"(?m)^#\s.*$", "", text), "GPUs come from the command line"


def test_nothing_ends_rays_of_others() -> None:
    for path in [*ROOT.glob("slurm/*"), *ROOT.glob("cluster/*.yaml")]:
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        assert path.suffix == ".md" or "ray stop" not in code, path
        assert path.suffix == ".md" or "pkill" not in code, path


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("srun: a\nno room\nray start ended by itself\nsrun: b\n", "no room"),
        ("ray start ended by itself\n", "ray start ended by itself"),
        ("srun: error: Unable to create step: Invalid generic resource\n\n", "srun: error: Unable to create step.*"),
    ],
)
def test_the_cause_is_the_last_telling_line(tmp_path: Path, log: str, cause: str) -> None:
    (tmp_path / "log").write_text(log)
    script = f"source {ROOT}/slurm/ray_up.sh; ru_last {tmp_path}/log"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert re.fullmatch(cause, done.stdout.strip())


@pytest.mark.heavy
def test_what_cannot_start_says_why_in_one_line(box: SlurmBox, tmp_path: Path) -> None:
    """Jobs of two nodes, one after another, each with its fault; none of them gets as far as Ray."""
    at = box.folder / tmp_path.name
    run = run_file(at)
    broken = run_file(at / "broken", 'name = "x"\nout = "o"\n[model]\nbase = "tiny"\n[train]\nepoch = 3\n')
    one = ("--nodes=1",)
    (at / "site.sh").write_text("export LD_LIBRARY_PATH=/x:$NEVER_SET\n")  # as files of modules do
    submit(box, at / "elsewhere", "train", run, cwd=at, options=one).wait(60)
    assert "exit code 2: submit from the top folder" in (at / "elsewhere/job.out").read_text()
    jobs = {
        "venv": (submit(box, at / "venv", "train", run, options=one, ECELLM_VENV="/no/venv"), 2, "no Python at /no"),
        "setup": (
            submit(box, at / "setup", "train", str(at / "no.toml"), options=one, ECELLM_SETUP=str(at / "site.sh")),
            2, "no.toml: no such run file",
        ),
        "none": (submit(box, at / "none", "train", str(at / "no.toml"), options=one), 2, "no.toml: no such run file"),
        "key": (submit(box, at / "key", "train", broken, options=one), 2, "faults"),
        "array": (submit(box, at / "array", "train", run, run, options=one), 2, "2 run files: give one"),
        "gpus": (
            submit(box, at / "gpus", "train", run, "--cluster.gpus_per_worker=1", options=one), 2, "the run wants GPUs",
        ),
        "out": (submit(box, at / "out", "train", run, "--out=/proc/nowhere", options=one), 4, "/proc/nowhere"),
        "net": (submit(box, at / "net", "train", run, ECELLM_INTERFACE="ib9"), 5, "no such network interface"),
        "tmp": (submit(box, at / "tmp", "train", run, ECELLM_TMP="/proc"), 5, "no room in its temporary folder"),
    }  # fmt: skip
    for job, code, cause in jobs.values():
        ended(job, code, cause)


@pytest.mark.heavy
def test_an_element_of_an_array_takes_its_own_run_file(box: SlurmBox, tmp_path: Path) -> None:
    at = box.folder / tmp_path.name
    words = [str(at / "first.toml"), str(at / "second.toml")]
    options = ("--nodes=1", "--array=0-2", f"--output={at}/%a.out")
    sent = submit(box, at, "train", *words, options=options)
    for number, cause in enumerate(
        ("first.toml: no such", "second.toml: no such", "element 2 of the array has no run")
    ):
        ended(Job(box, f"{sent.id}_{number}", at / f"{number}.out"), 2, cause)
    options = ("--nodes=1", "--array=0-1", f"--output={at}/one-%a.out")
    same = submit(box, at, "train", words[0], options=options)
    ended(Job(box, f"{same.id}_1", at / "one-1.out"), 2, "an array of 2 elements with one run file")
    options = ("--nodes=1", "--array=0-1", f"--output={at}/out-%a.out")
    same = submit(box, at, "train", *words, "--out", str(at / "out"), options=options)
    ended(Job(box, f"{same.id}_0", at / "out-0.out"), 2, "one --out for all elements")


@pytest.mark.heavy
def test_modules_and_images_wrap_every_command(box: SlurmBox, tmp_path: Path) -> None:
    """With a stand-in for apptainer, put on the path by the file that is sourced first, as a module would."""
    at = box.folder / tmp_path.name
    at.mkdir()
    (at / "image.sif").touch()
    stand_in = at / "apptainer"
    stand_in.write_text(
        f'#!/bin/bash\necho "$SLURMD_NODENAME $*" >>{at}/asked\n'
        f'while [ "${{1##*.}}" != sif ]; do shift; done\nshift 2\nexec {sys.prefix}/bin/python "$@"\n'
    )
    stand_in.chmod(0o755)
    (at / "site.sh").write_text(f"export PATH={at}:$PATH ECELLM_IMAGE={at}/image.sif ECELLM_BIND=/opt/data\n")
    job = submit(
        box,
        at,
        "train",
        run_file(at),
        "--cluster.gpus_per_worker=1",
        ECELLM_SETUP=str(at / "site.sh"),
        ECELLM_VENV="/none",
    )
    ended(job, 2, "the run wants GPUs")
    asked = (at / "asked").read_text().splitlines()
    assert {line.split()[0] for line in asked} == {"n1", "n2"}
    assert all(
        f"exec --bind {ROOT},/tmp,/opt/data --pwd {ROOT} {at}/image.sif python -m ecellm" in line for line in asked
    )


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(280)
def test_a_run_over_two_nodes_is_stopped_requeued_and_ends_whole(box: SlurmBox, tmp_path: Path) -> None:
    at = box.folder / tmp_path.name
    out = at / "out"
    job = submit(box, at, "pipeline", run_file(at), "--train.max_steps=200", "--checkpoint.every=20")
    deadline = time.monotonic() + 150
    while not checkpoints(out):
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.2)
    # To the steps and not to the batch shell: Ray's own processes get it too, and must not die of it.
    box.run("scancel", "--signal=USR1", job.id)
    assert job.wait(200) == ("COMPLETED", 0), job.said()
    said = job.said()
    assert job.restarts() == 1
    assert said.count("2 nodes, 2 CPUs") == 2, "one worker on each node"
    stopped = re.search(r"stopped after step (\d+) of 200, state saved", said)
    assert stopped, said
    found = steps(out)
    assert [line["step"] for line in found] == list(range(1, 201))
    assert {line["workers"] for line in found} == {2}
    assert f"going on after step {stopped.group(1)}" in said
    assert (out / "scores.json").exists()
    assert (out / "report.html").exists()
    for node in box.nodes:
        left = box.within(
            node, "bash", "-c", "ls -d /tmp/ec[0-9]* /tmp/ecellm-0-* 2>/dev/null; pgrep -fc raylet/raylet"
        ).stdout
        assert left.strip() == "0", f"{node}: {left}"
