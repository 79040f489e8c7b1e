"""Run files: what is read, and what a person is told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecellm.config.load import load_run
from ecellm.errors import ConfigError
from ecellm.provenance import write_run_json
from ecellm.storage.local import LocalStorage

GOOD = 'name = "x"\nout = "o"\n[sources]\nmade_up = {}\n[model]\nbase = "tiny"\n'


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(GOOD)
    return path


def fails(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_run(str(path), overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_fill_what_is_not_written(run_file: Path) -> None:
    run = load_run(str(run_file))
    assert run.train.batch_size == 128
    assert run.sources.made_up is not None


@pytest.mark.parametrize(
    ("words", "get", "expected"),
    [
        (["--train.learning_rate", "3e-4"], lambda run: run.train.learning_rate, 3e-4),
        (["--train.learning_rate=3e-4"], lambda run: run.train.learning_rate, 3e-4),
        (["--train.learning-rate=3e-4"], lambda run: run.train.learning_rate, 3e-4),
        (["--build.tasks", "PM,SA"], lambda run: run.build.tasks, ("PM", "SA")),
        (["--build.tasks", "PM"], lambda run: run.build.tasks, ("PM",)),
        (["--build.tasks", '["PM", "AG"]'], lambda run: run.build.tasks, ("PM", "AG")),
        (["--train.betas", "0.8,0.9"], lambda run: run.train.betas, (0.8, 0.9)),
        (["--name", "12"], lambda run: run.name, "12"),
        (["--model.gradient_checkpointing", "true"], lambda run: run.model.gradient_checkpointing, True),
        (["--model.lora.rank", "4"], lambda run: run.model.lora and run.model.lora.rank, 4),
        (["--model.lora", "{}", "--model.lora", "null"], lambda run: run.model.lora, None),
        (["--build.task_sizes.PM", '{"train": 7}'], lambda run: run.build.task_sizes["PM"].train, 7),
    ],
)
def test_overrides(run_file: Path, words: list[str], get: object, expected: object) -> None:
    assert get(load_run(str(run_file), words)) == expected  # type: ignore[operator]


def test_all_faults_come_at_once_with_path_and_line(run_file: Path) -> None:
    run_file.write_text(GOOD + '[train]\nlearning_rat = 3\nepochs = "3"\nbatch_size = 1\n[cluster]\nworkers = 2\n')
    said = fails(run_file, "--evaluate.settings", "IND_Divers", "--build.tasks", "PM,XX")
    assert f"{run_file}, line 8: train.learning_rat: unknown key; expected train.learning_rate" in said
    assert f"{run_file}, line 9: train.epochs: '3'; expected an integer" in said
    assert f"{run_file}, line 10: train.batch_size: 1 for 2 workers; expected 2 or more" in said
    assert "command line: evaluate.settings.0: 'IND_Divers'" in said
    assert "command line: build.tasks.1: 'XX'" in said
    assert "5 faults" in said


def test_a_key_of_another_section_is_found(run_file: Path) -> None:
    run_file.write_text("learning_rate = 1e-4\n" + GOOD)
    assert "expected train.learning_rate" in fails(run_file)


def test_missing_settings_are_named(run_file: Path) -> None:
    run_file.write_text("")
    said = fails(run_file)
    for name in ("name", "out", "model"):
        assert f"{name}: is missing" in said


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["stray"], "stray: is no override"),
        (["--train.epochs"], "command line: --train.epochs: has no value"),
        (["--dryrun", "x"], "dryrun: unknown key"),
        (["--name.x", "1"], "name is no section"),
        (["--train.epochs", "many"], "train.epochs: 'many'"),
        (["--train.epochs", "0"], "train.epochs: 0"),
    ],
)
def test_bad_overrides(run_file: Path, words: list[str], part: str) -> None:
    assert part in fails(run_file, *words)


def test_bad_toml_names_file_and_line(run_file: Path) -> None:
    run_file.write_text('name = "x"\nout = o\n')
    said = fails(run_file)
    assert f"{run_file}, line 2" in said
    assert "out = o" in said


def test_a_missing_file_names_the_mend(tmp_path: Path) -> None:
    assert "jobs/runs/" in fails(tmp_path / "no.toml")


def test_a_folder_is_no_run_file(tmp_path: Path) -> None:
    assert "cannot be read" in fails(tmp_path)


def test_a_resolved_run_is_a_run_file(run_file: Path, tmp_path: Path) -> None:
    """What a dry run prints, and run.json."""
    run = load_run(str(run_file), ["--model.lora.rank", "4"])
    resolved = tmp_path / "resolved.json"
    resolved.write_text(run.model_dump_json())
    assert load_run(str(resolved)) == run
    write_run_json(LocalStorage(str(tmp_path)), run)
    assert load_run(str(tmp_path / "run.json"), ["--train.epochs", "7"]).train.epochs == 7
    for broken in ("{", "[]", '{"run": 1}'):
        resolved.write_text(broken)
        assert f"{resolved}: no resolved run" in fails(resolved)


def test_home_is_a_place(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    run = load_run(str(run_file), ["--out", "~/runs/x", "--sources.root", "~/raw"])
    assert (run.out, run.sources.root) == ("/home/me/runs/x", "/home/me/raw")
