"""Faults of run files, raw data, rows and storage: the exit code, the place, the mend, and what stays."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.cli_runs import RUN, ecellm, fill, run_file, small_disk

MADE_UP = RUN[RUN.index("[sources.made_up]") : RUN.index("[build]")]
FILES = {
    "PM": ("amazon_google", "amazon_google"),
    "AP": ("amazonqa", "amazonqa/train-qar.jsonl"),
    "QPR": ("esci", "esci"),
    "SA": ("amazon_reviews", "amazon2018/Electronics.json.gz"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = run_file(tmp_path_factory.mktemp("built"))
    ecellm(folder, "build", "run.toml").tells(0)
    return folder


@pytest.fixture
def place(built: Path, tmp_path: Path) -> Path:
    """A folder of one's own with run.toml and everything that build leaves."""
    return Path(shutil.copytree(built, tmp_path / "place"))


def on_files(place: Path, *tasks: str) -> Path:
    """A run file there that reads the raw files of these tasks, by a relative root."""
    entries = "".join(
        f'[[sources.files]]\nformat = "{FILES[task][0]}"\npath = "{FILES[task][1]}"\ntasks = ["{task}"]\n\n'
        for task in tasks
    )
    text = RUN.replace(MADE_UP, f'[sources]\nroot = "raw"\n\n{entries}').replace('["PM", "AP"]', json.dumps(tasks))
    if not (place / "raw").exists():
        shutil.move(place / "out" / "raw", place / "raw")
        shutil.rmtree(place / "out")
    return run_file(place, text.replace('tasks = ["PM"]\nsystems', f"tasks = {json.dumps(tasks)}\nsystems"))


def test_all_faults_of_a_run_file_come_at_once(tmp_path: Path) -> None:
    folder = run_file(tmp_path, RUN.replace("max_steps = 2", 'max_step = 2\nepochs = "3"').replace('"AP"', '"XX"'))
    for words in ((), ("--dry-run",)):
        done = ecellm(folder, "train", "run.toml", *words)
        done.tells(
            2,
            r"run\.toml, line \d+: train\.max_step: unknown key; expected train\.max_steps",
            r"run\.toml, line \d+: train\.epochs: '3'; expected an integer",
            r"run\.toml, line \d+: build\.tasks\.1: 'XX'; expected .*'PM'",
            r"mend +correct them",
        )
    assert sorted(path.name for path in folder.iterdir()) == ["run.toml"]


def test_a_run_file_that_is_no_toml_names_the_line(tmp_path: Path) -> None:
    folder = run_file(tmp_path, 'name = "x"\nout = out\n')
    ecellm(folder, "build", "run.toml").tells(2, r"run\.toml, line 2: not TOML", "found +out = out", "expected")


def test_an_unknown_task_is_told_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("answers.json", "gold.json"):
        (tmp_path / name).write_text('["yes"]')
    words = "--setting IND_Diverse_Instruction --predictions answers.json --labels gold.json --rule strict --json"
    done = ecellm(tmp_path, "score", "--task", "Product_Machting", *words.split())
    done.tells(2, "unknown task", "Product_Machting", "Product_Matching", "mend")


def test_a_missing_raw_file_costs_no_other_task(place: Path) -> None:
    on_files(place, "PM", "AP")
    ecellm(place, "build", "run.toml").tells(0)
    finished = (place / "out/rows/train/part-00002.parquet").read_bytes()
    (place / "raw/amazonqa/train-qar.jsonl").rename(place / "elsewhere")
    done = ecellm(place, "build", "run.toml", "--seed", "1", "--build.max_words", "41")
    done.tells(3, r"raw/amazonqa/train-qar\.jsonl: no such file", r"mend +correct `path` or sources\.root")
    assert (place / "out/rows/train/part-00002.parquet").read_bytes() == finished
    assert (place / "out/rows/COMPLETE").exists()
    (place / "elsewhere").rename(place / "raw/amazonqa/train-qar.jsonl")
    ecellm(place, "build", "run.toml").tells(0, "complete")


@pytest.mark.parametrize("which", ["examples", "products"])
def test_a_truncated_raw_parquet(place: Path, which: str) -> None:
    on_files(place, "PM", "QPR")
    path = place / f"raw/esci/shopping_queries_dataset_{which}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = ecellm(place, "build", "run.toml")
    done.tells(3, rf"raw/esci/.*{which}\.parquet: not a whole Parquet file", "mend +download the file again")
    assert (place / "out/rows/tasks/PM/COMPLETE").exists()
    path.write_bytes(whole)
    ecellm(place, "build", "run.toml").tells(0, "PM +done before")


def test_a_truncated_gzip(place: Path) -> None:
    on_files(place, "PM", "SA")
    path = place / "raw/amazon2018/Electronics.json.gz"
    path.write_bytes(path.read_bytes()[:-200])
    done = ecellm(place, "build", "run.toml")
    done.tells(3, r"raw/amazon2018/Electronics\.json\.gz, line \d+: cannot be read on", "EOFError", "mend +fetch")
    assert (place / "out/rows/tasks/PM/COMPLETE").exists()


def test_too_many_broken_lines_name_the_first_and_the_setting(place: Path) -> None:
    on_files(place, "PM", "SA")
    path = place / "raw/amazon2018/Electronics.json.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines()
    lines[3] = lines[3][:-9]
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    done = ecellm(place, "build", "run.toml", "--sources.max_bad_share", "0.0")
    done.tells(3, r"Electronics\.json\.gz: too many broken lines", "line 4: no JSON", r"sources\.max_bad_share", "mend")
    assert (place / "out/rows/tasks/PM/COMPLETE").exists()
    lines = [line if number % 3 else b"{" for number, line in enumerate(lines)]
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    done = ecellm(place, "build", "run.toml")
    done.tells(3, "Electronics", "line 1: no JSON", "at most 5%", "mend")


def test_a_truncated_rows_file_is_no_training_data(place: Path) -> None:
    path = place / "out/rows/train/part-00002.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    done = ecellm(place, "prepare", "run.toml")
    done.tells(3, r"out/rows/train/part-00002\.parquet: cannot be read as Parquet", "mend .*ecellm build")
    assert (place / "out/rows/card.json").exists()


def test_a_base_folder_without_a_tokenizer(place: Path) -> None:
    base = place / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    done = ecellm(place, "prepare", "run.toml", "--model.base", "base")
    done.tells(4, r"/base\b.* tokenizer", r"tokenizer\.json", "mend +copy the tokenizer files")
    assert (place / "out/rows/COMPLETE").exists()


def test_a_disk_that_fills_up_during_build(place: Path, tmp_path: Path) -> None:
    on_files(place, "PM", "AP")
    with small_disk(tmp_path / "disk", "2m") as disk:
        words = ("run.toml", "--out", str(disk / "out"))
        ecellm(place, "build", *words, "--build.tasks", '["PM"]', "--evaluate.tasks", '["PM"]').tells(0)
        filler = fill(disk, leave=8192)
        full = ecellm(place, "build", *words)
        full.tells(4, f"{disk}/out/rows/.*: cannot write", "No space left", "mend +free some space")
        assert (disk / "out/rows/tasks/PM/COMPLETE").exists()
        assert not (disk / "out/rows/COMPLETE").exists()
        assert not list(disk.rglob(".ecellm-tmp-*"))
        filler.unlink()
        ecellm(place, "build", *words).tells(0, "PM +done before")


def test_a_disk_that_fills_up_while_raw_data_is_made_up(tmp_path: Path) -> None:
    folder = run_file(tmp_path)
    with small_disk(tmp_path / "disk", "64k") as disk:
        done = ecellm(folder, "build", "run.toml", "--out", str(disk / "out"))
        done.tells(4, f"{disk}/out/raw", "No space left", "mend +free some space")


def test_a_limit_on_file_sizes_is_told_as_a_full_disk_is(tmp_path: Path) -> None:
    done = ecellm(run_file(tmp_path), "build", "run.toml", before="ulimit -f 16")
    done.tells(4, r"out/raw", "File too large", "mend +.*ulimit")


def test_an_s3_endpoint_that_does_not_answer(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    words = ("run.toml", "--out", "s3://some-bucket/run", "--storage.attempts", "2")
    for stage in ("build", "train"):
        done = ecellm(run_file(tmp_path), stage, *words, AWS_ENDPOINT_URL="http://127.0.0.1:1", **keys)
        done.tells(4, "s3://some-bucket/run/.*: S3 does not answer", "127.0.0.1:1", "mend .*AWS_ENDPOINT_URL")


def test_s3_without_credentials(tmp_path: Path) -> None:
    done = ecellm(
        run_file(tmp_path), "train", "run.toml", "--out", "s3://some-bucket/run", HOME=str(tmp_path),
        AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    done.tells(4, "s3://some-bucket/run", "credentials", "mend +set AWS_ACCESS_KEY_ID")
