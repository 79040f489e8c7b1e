"""The command line as a person meets it: codes, messages, and the commands that need no model."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecellm.cli import main
from ecellm.cli.exits import exit_code_of, ours
from ecellm.data.encode import TooLong
from ecellm.errors import CheckpointError, ClusterError, ConfigError, DataError, EcellmError, Stopped, StorageError


def leaves(*words: str) -> int:
    """Exit code of a command."""
    try:
        main(words)
    except SystemExit as left:
        return int(left.code or 0)
    raise AssertionError("main came back")


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (ConfigError("x"), 2),
        (DataError("x"), 3),
        (StorageError("x"), 4),
        (CheckpointError("x"), 4),
        (ClusterError("x"), 5),
        (Stopped("saved at step 3"), 75),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(errno.ENOENT, "no such object", "s3://b/k"), 3),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (TooLong("a kind of data error from another module"), 3),
        (OSError(errno.EFBIG, "File too large"), 4),
        (RuntimeError("surprise"), 1),
    ],
)
def test_each_error_has_its_code(trouble: BaseException, code: int) -> None:
    assert exit_code_of(trouble) == code


def test_a_signal_to_a_stage_that_keeps_what_it_has_is_75() -> None:
    """A real process, in the middle of a stage: SIGTERM and SIGUSR1 say run me again, Ctrl-C does not."""
    script = (
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job ignores it
        "from ecellm.cli import app, main; app.command('nap')(lambda: (print(1), time.sleep(60)))"
    )
    for number, code in ((signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)):
        words = [sys.executable, "-u", "-c", f"{script}; main(['nap'])"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stage:
            assert stage.stdout is not None
            try:
                assert stage.stdout.readline() == "1\n"
                stage.send_signal(number)
                _, said = stage.communicate(timeout=30)
            finally:
                stage.kill()
        assert stage.returncode == code, said


def test_the_cause_is_left_in_one_line_for_whoever_started_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ECELLM_CAUSE_FILE", str(tmp_path / "cause"))
    monkeypatch.setenv("ECELLM_TELL_EXIT", "1")
    assert leaves("train", "no/such.toml") == 2
    assert (tmp_path / "cause").read_text() == "no/such.toml: no such run file\n"
    assert capsys.readouterr().err.endswith("ecellm: exit code 2\n")


def test_an_error_inside_a_workers_error_is_found() -> None:
    class Wrapped(Exception):
        cause: Exception

    outer = Wrapped("actor died")
    outer.cause = DataError("line 3", mend="mend it")
    assert ours(outer) is outer.cause
    assert exit_code_of(outer) == 3


def test_a_wrapper_that_is_also_ours_gives_the_inner_one() -> None:
    """Ray raises a class made of its own error and the worker's; its text is a traceback."""

    class Both(DataError):
        cause: EcellmError

    both = Both("Traceback ...")
    both.cause = DataError("line 3")
    assert ours(both) is both.cause


def test_a_surprise_leaves_its_traceback_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert exit_code_of(ValueError("odd\nsecond line")) == 1
    (log,) = tmp_path.iterdir()
    assert "ValueError: odd" in log.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-command"],
        ["train"],
        ["train", "no/such.toml"],
        ["train", "--seed", "1"],
        ["train", "jobs/runs/phi2.toml", "jobs/runs/phi2.toml", "--dry-run"],
        ["train", "jobs/runs/quickstart.toml", "--train.epoch", "3", "--dry-run"],
        ["report", "x", "--name", "y"],
        ["plan", "jobs/runs/phi2.toml", "--gpu", "abacus"],
        ["plan", "jobs/runs/phi2.toml", "--model.base", "some/unknown"],
        ["score", "--task", "XX", "--setting", "IND", "--predictions", "a", "--labels", "b", "--rule", "paper"],
        ["score", "--task", "PM", "--setting", "IND", "--predictions", "a", "--labels", "b", "--rule", "kind"],
    ],
)
def test_bad_usage_is_2(words: list[str], root: None) -> None:
    assert leaves(*words) == 2


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])


def test_score_prints_the_golden_numbers(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = shared / "golden" / "eval" / "AP_IND"
    expected = json.loads((case / "expected.json").read_text())
    words = ["score", "--task", expected["task_in_evaluator"], "--setting", expected["setting"]]
    words += ["--predictions", str(case / "predictions.json"), "--labels", str(case / "labels.json")]
    for rule in ("paper", "strict"):
        assert leaves(*words, "--rule", rule, "--json") == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        for key, value in expected[rule].items():
            assert said[key] == pytest.approx(value, abs=1e-9)


def test_a_broken_list_is_3(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text('["yes"]')
    (tmp_path / "bad.json").write_text('["yes"')
    for name in ("bad.json", "none.json"):
        words = ["--predictions", str(tmp_path / name), "--labels", str(tmp_path / "good.json"), "--rule", "strict"]
        assert leaves("score", "--task", "PM", "--setting", "IND_Diverse_Instruction", *words) == 3


def test_checkpoints_of_nothing(tmp_path: Path) -> None:
    assert leaves("checkpoints", "list", str(tmp_path)) == 4
    (tmp_path / "run.json").write_text("{}")
    assert leaves("checkpoints", "list", str(tmp_path)) == 0
    assert leaves("checkpoints", "verify", str(tmp_path)) == 4
    assert leaves("checkpoints", "prune", str(tmp_path)) == 0


def test_an_endpoint_that_is_down_is_4(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert leaves("checkpoints", "list", "s3://some-bucket/run") == 4


def test_plan_in_json(capsys: pytest.CaptureFixture[str], root: None) -> None:
    assert leaves("plan", "jobs/runs/llama2_13b.toml", "--nodes", "2", "--gpus-per-node", "8", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["gpus"] == 16
    assert said["fits"] is True


def test_doctor_finds_the_essentials(monkeypatch: pytest.MonkeyPatch, aws: str) -> None:
    assert leaves("doctor") == 0
    assert leaves("doctor", "--s3", "s3://no-such-bucket/x") == 4
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert leaves("doctor") == 5


def test_overrides_may_come_first(capsys: pytest.CaptureFixture[str], root: None) -> None:
    assert leaves("train", "--train.epochs", "7", "jobs/runs/phi2.toml", "--seed=9", "--dry-run") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["train"]["epochs"], said["seed"]) == (7, 9)
