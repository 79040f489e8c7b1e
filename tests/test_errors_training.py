"""Faults of prepare, training and evaluation: the exit code, the place, the mend, and what stays and goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ecellm.records import Row
from ecellm.rows import read_rows, write_rows
from ecellm.storage.local import LocalStorage
from tests.cli_runs import LIMIT_S, Done, command, ecellm, environment, fill, run_file, small_disk

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
RAY = ("--train.engine", "zero3", "--cluster.workers", "2")
PM, AP = "part-00002", "part-00008"
LONG = " and again" * 3000


def lengthen(out: Path, split: str, part: str, task: str, most: int = 1000) -> list[str]:
    """Give the first rows that are learnt from or asked an instruction that no limit holds. Returns their ids."""
    storage = LocalStorage(str(out))
    rows = read_rows(storage, split=split, task=task)
    chosen = [row.id for row in rows if row.setting == "IND_Diverse_Instruction"][:most]
    write_rows(storage, "rows", (_long(row) if row.id in chosen else row for row in rows), part)
    return chosen


def _long(row: Row) -> Row:
    return replace(row, instruction=row.instruction + LONG)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Done]:
    """A folder that is built and prepared; rows made too long, and what prepare said of them."""
    folder = run_file(tmp_path_factory.mktemp("made"))
    ecellm(folder, "build", "run.toml").tells(0)
    long = lengthen(folder / "out", "train", PM, "Product_Matching", 3)
    done = ecellm(folder, "prepare", "run.toml")
    done.tells(0)
    return folder, long, done


@pytest.fixture(scope="module")
def trained(made: tuple[Path, list[str], Done], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(made[0], tmp_path_factory.mktemp("trained") / "place"))
    ecellm(folder, "train", "run.toml").tells(0)
    return folder


@pytest.fixture
def prepared(made: tuple[Path, list[str], Done], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "place"))


def test_prepare_says_which_samples_are_too_long(made: tuple[Path, list[str], Done]) -> None:
    _, long, done = made
    done.tells(0, r"train: \d+ samples, .* 3 left out", r"too long for prepare\.max_length = 512", *long)


def test_a_task_without_a_row_that_fits_is_bad_data(prepared: Path) -> None:
    lengthen(prepared / "out", "train", AP, "Answerability_Prediction")
    done = ecellm(prepared, "prepare", "run.toml", "--prepare.max_length", "480")
    done.tells(3, r"no training row of AP fits prepare\.max_length = 480", "mend +raise prepare.max_length")
    assert (prepared / "out/rows/COMPLETE").exists()
    assert not (prepared / "out/tokens/COMPLETE").exists()


def test_the_pipeline_goes_on_from_what_is_there_and_a_second_time_does_nothing(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "place"))
    ecellm(folder, "pipeline", "run.toml").tells(
        0,
        r"build \d+ s \(was complete\)  prepare \d+ s \(was complete\)  train \d+ s \(was complete\)  evaluate \d+ s  ",
    )
    made = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.is_file()}
    again = ecellm(folder, "pipeline", "run.toml")
    again.tells(0, r"train \d+ s \(was complete\)  evaluate \d+ s \(was complete\)")
    kept = [path for path in made if not path.name.startswith("report.") and path.name != "run.json"]
    assert "scores.json" in {path.name for path in kept}
    assert {path: path.stat().st_mtime_ns for path in kept} == {path: made[path] for path in kept}


def test_a_prompt_that_does_not_fit_is_named_before_any_model_is_asked(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "place"))
    ids = lengthen(folder / "out", "test", PM, "Product_Matching")
    done = ecellm(folder, "evaluate", "run.toml")
    done.tells(3, r"row \S+ of Product_Matching \(test, .*\) does not fit", "mend +raise prepare.max_length")
    assert any(name in done.said for name in ids)
    assert (folder / "out/model/COMPLETE").exists()


def test_a_model_folder_without_a_tokenizer_is_not_asked(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "place"))
    (folder / "out/model/tokenizer.json").unlink()
    done = ecellm(folder, "evaluate", "run.toml")
    done.tells(4, r"out/model\b.* tokenizer", r"tokenizer\.json", "mend")
    assert (folder / "out/checkpoints/step-00000002/COMPLETE").exists()


def test_a_disk_that_fills_up_while_a_checkpoint_is_saved(trained: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        shutil.copytree(trained / "out", disk / "out")
        words = ("train", "run.toml", "--out", str(disk / "out"), "--train.max_steps", "4")
        filler = fill(disk, leave=160 << 10)
        full = ecellm(trained, *words)
        full.tells(4, f"{disk}/out/checkpoints/step-00000004/.*: cannot write", "No space left", "mend +free some")
        assert (disk / "out/checkpoints/step-00000002/COMPLETE").exists()
        assert not (disk / "out/checkpoints/step-00000004/COMPLETE").exists()
        assert (disk / "out/model/COMPLETE").exists()
        filler.unlink()
        ecellm(trained, *words).tells(0, "going on after step 2")
        assert (disk / "out/checkpoints/step-00000004/COMPLETE").exists()


def test_a_broken_number_ends_the_run_at_its_step(prepared: Path) -> None:
    words = ("--train.weight_decay", "1e40", "--train.max_steps", "6", "--checkpoint.every", "1")
    done = ecellm(prepared, "train", "run.toml", *words)
    done.tells(3, r"step [2-6]: the (loss|gradient) is not a finite number", r"samples \S+", "mend .*learning_rate")
    assert (prepared / "out/checkpoints/step-00000001/COMPLETE").exists()
    assert not (prepared / "out/model/COMPLETE").exists()


def test_a_training_that_is_asked_to_stop_saves_and_goes_on(prepared: Path) -> None:
    words = ("train", "run.toml", "--train.max_steps", "30", "--train.epochs", "20", "--checkpoint.every", "100")
    with started(prepared, *words) as process:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if "attention:" in line:
                process.send_signal(signal.SIGTERM)
        done = Done(process.wait(LIMIT_S), said)
    done.tells(75, r"stopped after step \d+ of 30, state saved", "mend +run the same command")
    (saved,) = (prepared / "out/checkpoints").iterdir()
    assert (saved / "COMPLETE").exists()
    ecellm(prepared, *words).tells(0, f"going on after step {int(saved.name[-8:])} ")
    assert (prepared / "out/checkpoints/step-00000030/COMPLETE").exists()


@pytest.mark.long
def test_a_worker_that_is_killed_for_good_and_everything_relative(prepared: Path) -> None:
    """Also: a relative `out` and base folder reach workers whose working directory is another one."""
    shutil.copytree(prepared / "out/base", prepared / "start")
    words = ("train", "run.toml", *RAY, "--model.base", "start", "--train.max_steps", "40", "--train.epochs", "20")
    first = prepared / "out/checkpoints/step-00000002/COMPLETE"
    with started(prepared, *words, "--cluster.max_failures", "0") as process:
        until(first.exists, process)
        victim = next(pid for pid, name in descendants(process.pid) if "RayTrainWorker" in name)
        os.kill(victim, signal.SIGKILL)
        said, _ = process.communicate(timeout=LIMIT_S)
    done = Done(process.returncode, said)
    done.tells(5, r"training failed in attempt 1 at step \d+", r"worker [01]", "mend +run the same command to go on")
    assert first.exists()
    assert not (prepared / "out/model/COMPLETE").exists()
    again = ecellm(prepared, *words, "--cluster.max_failures", "1")
    again.tells(0, r"going on after step [2-9]\d* \(written by 2 workers\)")
    assert (prepared / "out/model/COMPLETE").exists()
    assert not list(prepared.glob("[!ors]*")), "something was written beside the run"
    for path in (prepared / "out/run.json", *(prepared / "out/checkpoints").glob("*/manifest.json")):
        assert str(prepared) not in path.read_text()


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the block does; whatever is left of it then is killed."""
    process = subprocess.Popen(
        command(*words), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            for pid, _ in descendants(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a running command does."""
    last = time.monotonic() + LIMIT_S
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < last, "it never happened"
        time.sleep(0.02)


def descendants(pid: int) -> list[tuple[int, str]]:
    """(pid, command line) of every process below this one."""
    import psutil

    return [(child.pid, " ".join(child.cmdline())) for child in psutil.Process(pid).children(recursive=True)]
