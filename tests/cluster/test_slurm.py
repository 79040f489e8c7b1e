"""Real `sbatch` over two Slurm nodes: what a job says when it cannot start, and a run that is stopped and goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


def stand_in(path: Path, script: str) -> Path:
    """An executable of that script."""
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


def until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_notice_while_a_node_looks_at_itself_is_written_down(tmp_path: Path) -> None:
    """`scancel --signal=USR1` reaches every process of the step."""
    begun = tmp_path / "begun"
    look = f": >{begun}; sleep 1; echo {{}}"
    words = ["bash", f"{ROOT}/slurm/ray_look.sh", str(tmp_path / "stop"), "bash", "-c", look]
    step = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    until(begun.exists)
    os.killpg(step.pid, signal.SIGUSR1)
    assert step.communicate(timeout=20)[0] == "{}\n", "it looked to the end"
    assert step.returncode in (0, 138)
    assert (tmp_path / "stop").exists()


def test_a_notice_while_ray_is_being_started_is_written_down_and_ends_nothing(tmp_path: Path) -> None:
    begun, started, stop = tmp_path / "begun", tmp_path / "started", tmp_path / "stop"
    python = stand_in(
        tmp_path / "python",
        f'case "$*" in *cluster.ports*) : >{begun}; sleep 1; echo --head ;; *) : >{started}; exec sleep 60 ;; esac',
    )
    words = ["head", "10240", "127.0.0.1", "1", "0", "1", str(tmp_path / "tmp"), str(tmp_path / "keep.tgz"), str(stop)]
    step = subprocess.Popen(
        ["bash", f"{ROOT}/slurm/ray_node.sh", *words, str(python)], stdin=subprocess.PIPE, start_new_session=True
    )
    assert step.stdin
    until(begun.exists)
    os.killpg(step.pid, signal.SIGUSR1)
    until(lambda: started.exists() or step.poll() is not None)
    step.stdin.close()  # the life line: the batch shell lets the node go
    assert step.wait(timeout=20) == 0
    assert started.exists()
    assert stop.exists()


@pytest.mark.parametrize("phase", ["ru_check train", "ru_start"])
@pytest.mark.parametrize("step", [": >{stop}; exit 5", "exit 138"])
def test_an_early_notice_to_the_steps_requeues_and_blames_no_node(tmp_path: Path, phase: str, step: str) -> None:
    """Whether the step still wrote it down, or was ended by USR1 before it could."""
    at = tmp_path / "dir"
    at.mkdir()
    srun = stand_in(tmp_path / "srun", step.format(stop=at / "stop"))
    said = '*begin*) printf "/out\\nk\\nn\\n" ;; *ready*) exec sleep 20 ;; *) exit 5 ;;'
    python = stand_in(tmp_path / "python", f'case "$*" in {said} esac')
    script = f"""source {ROOT}/slurm/ray_up.sh
    ru_root={ROOT} ru_dir={at} ru_logs={tmp_path} ru_tmp=/tmp ru_name=1.0 ru_names=(n1) ru_overrides=() ru_file=x
    ru_run=({python}) ru_srun=({srun}) address=x:1 base=1 object_store=1 total_cpus=1 total_gpus=0
    declare -A node_cpus=([n1]=1) node_gpus=([n1]=0) node_address=([n1]=x)
    export ECELLM_CAUSE_FILE={at}/cause SLURM_JOB_ID=1
    scontrol() {{ echo "scontrol $*"; }}; sleep() {{ command sleep 0.1; }}
    {phase}"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 75, done.stderr
    assert done.stdout == "scontrol requeue 1\n"
    assert "requeued: stopped with the state saved" in done.stderr


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


def batch(at: Path, stage: str) -> str:
    """A batch file of a stage that has none of its own."""
    path = at / f"{stage}.sbatch"
    path.write_text((ROOT / "slurm/train.sbatch").read_text().replace("ray_up train", f"ray_up {stage}"))
    return str(path)


def nothing_is_left(box: SlurmBox) -> None:
    for node in box.nodes:
        left = box.within(
            node, "bash", "-c", "ls -d /tmp/ec[0-9]* /tmp/ecellm-0-* 2>/dev/null; pgrep -fc raylet/raylet"
        ).stdout
        assert left.strip() == "0", f"{node}: {left}"


@pytest.mark.heavy
def test_what_three_nodes_were_granted_is_counted_on_each(box: SlurmBox, tmp_path: Path) -> None:
    """Told without a Ray: the run asks for more than there is."""
    at = box.folder / tmp_path.name
    options = ("--nodes=3", "--gpus-per-node=2", "--cpus-per-task=2")
    job = submit(box, at, "train", run_file(at), "--cluster.workers=99", "--train.batch_size=99", options=options)
    ended(job, 2, "99 workers with 1 CPUs and a GPU each do not fit on all nodes together")
    assert "n1 2 CPUs 2 GPUs, n2 2 CPUs 2 GPUs, n3 2 CPUs 2 GPUs" in job.said()


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(500)
def test_three_nodes_and_gpus_by_node_come_up_whole(box: SlurmBox, tmp_path: Path) -> None:
    at = box.folder / tmp_path.name
    path = run_file(at)
    subprocess.run([sys.executable, "-m", "jobs.build", path], cwd=ROOT, check=True, capture_output=True)
    script = batch(at, "prepare")
    three = submit(box, at / "three", script, path, "--train.batch_size=12", options=("--nodes=3",))
    assert three.wait(300) == ("COMPLETED", 0), three.said()
    assert "3 nodes, 3 CPUs, 0 GPUs" in three.said()
    options = ("--nodes=2", "--gpus-per-node=2", "--cpus-per-task=2")
    # Its shards are there, so it is Ray alone that has to come up; the notice is shorter than any checkpoint needs.
    gpus = submit(box, at / "gpus", script, path, options=options, SBATCH_SIGNAL="B:USR1@45")
    assert gpus.wait(200) == ("COMPLETED", 0), gpus.said()
    assert "2 nodes, 4 CPUs, 4 GPUs" in gpus.said()
    assert "warning" not in gpus.said(), "prepare saves no checkpoint"
    nothing_is_left(box)


@pytest.mark.heavy
def test_a_notice_while_nodes_look_at_themselves_is_heard_and_no_restart_is_left(box: SlurmBox, tmp_path: Path) -> None:
    at = box.folder / tmp_path.name
    path = run_file(at)
    (at / "bin").mkdir()
    slow = f'[ "$2" != ecellm.cluster.nodecheck ] || {{ : >{at}/looking; sleep 2; }}\nexec {sys.prefix}/bin/python "$@"'
    stand_in(at / "bin/python", slow)
    job = submit(box, at / "early", "train", path, ECELLM_VENV=str(at), ECELLM_MAX_RESTARTS="0")
    until((at / "looking").exists, 60)
    box.run("scancel", "--signal=USR1", job.id)
    assert job.wait(60) == ("FAILED", 75), job.said()
    assert "not requeued after 0 restarts (ECELLM_MAX_RESTARTS)" in job.cause
    assert job.restarts() == 0


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(500)
def test_term_to_the_batch_shell_saves_and_is_not_requeued(box: SlurmBox, tmp_path: Path) -> None:
    at = box.folder / tmp_path.name
    path, out = run_file(at), at / "out"
    for stage in ("build", "prepare"):
        subprocess.run([sys.executable, "-m", f"jobs.{stage}", path], cwd=ROOT, check=True, capture_output=True)
    words = ("--train.engine=plain", "--train.max_steps=5000", "--checkpoint.every=20")
    job = submit(box, at / "term", "train", path, *words, options=("--nodes=1",), SBATCH_SIGNAL="B:USR1@45")
    until(lambda: checkpoints(out) or job.state()[0] not in ("PENDING", "RUNNING"), 300)
    box.run("scancel", "--batch", "--signal=TERM", job.id)
    assert job.wait(90) == ("FAILED", 75), job.said()
    assert "stopped, state saved; Slurm decides whether the job runs again" in job.cause
    assert job.restarts() == 0
    assert checkpoints(out)[-1] == steps(out)[-1]["step"], "the state of the last step is whole"
    assert "may need 60 s to stop in, and the notice comes 45 s before the time limit" in job.said()
    nothing_is_left(box)


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(600)
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
    assert job.wait(350) == ("COMPLETED", 0), job.said()
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
    nothing_is_left(box)
