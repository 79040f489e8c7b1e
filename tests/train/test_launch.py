"""`ecellm train` whole: real Ray Train, real ZeRO-3 ranks, a worker that is really killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from ecellm.config.schema import Run
from ecellm.data.prepare import prepare
from ecellm.errors import DataError
from ecellm.session import ray_session
from ecellm.storage.local import LocalStorage
from ecellm.train.launch import train
from tests.data.made import make_row, make_run, put_rows


def make(out: Path, **train_settings: Any) -> Run:
    """A run of four steps an epoch on two workers."""
    settings = {"epochs": 2, "batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-3} | train_settings
    workers = 1 if settings.get("engine") == "plain" else 2
    return make_run(
        str(out), train=settings, checkpoint={"every": 2}, cluster={"workers": workers, "max_failures": 1}
    )  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One Ray for all of this file."""
    with ray_session(make(Path("unused")), cpus=2):
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, session: None) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    rows = [make_row(i) for i in range(32)] + [make_row(i, "val") for i in range(6)]
    put_rows(LocalStorage(str(out)), rows)
    prepare(make(out))
    return out


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def copied(source: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(source, target)
    return target


def test_without_token_shards_it_says_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ecellm prepare"):
        train(make(tmp_path))


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_nothing_had_been(prepared: Path, tmp_path: Path) -> None:
    quiet, broken = copied(prepared, tmp_path / "quiet"), copied(prepared, tmp_path / "broken")
    train(make(quiet, engine="plain"))
    facts = train(make(broken, rehearse_failure_at=5))
    assert (facts["attempts"], facts["resumed"], facts["steps"]) == (2, [4], 8)
    wanted, found = lines(quiet), lines(broken)
    assert [line["step"] for line in found] == list(range(1, 9))
    assert [line["attempt"] for line in found] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in wanted], rel=1e-5)
    model = AutoModelForCausalLM.from_pretrained(broken / "model")
    other = AutoModelForCausalLM.from_pretrained(quiet / "model")
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4), name
    assert (broken / "model" / "prompt.json").exists()
    assert train(make(broken, rehearse_failure_at=5))["skipped"]


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_a_group_that_hangs_names_its_ranks_and_starts_again(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(prepared, tmp_path / "out")
    run = make(out, epochs=20)
    # Between checkpoints, since a rank that hangs in one is waited for longer.
    run = run.model_copy(update={"cluster": run.cluster.model_copy(update={"hang_timeout_s": 25}),
                                 "checkpoint": run.checkpoint.model_copy(update={"every": 40})})  # fmt: skip
    stopped: list[int] = []

    def stop_a_worker() -> None:
        while not (out / "checkpoints" / "step-00000040" / "COMPLETE").exists():
            time.sleep(0.1)
        stopped.append(worker_pids()[-1])
        os.kill(stopped[0], signal.SIGSTOP)

    threading.Thread(target=stop_a_worker, daemon=True).start()
    facts = train(run)
    assert stopped
    assert facts["attempts"] == 2
    assert [line["step"] for line in lines(out)] == list(range(1, 81))
    said = capsys.readouterr().err
    assert "nothing got on for" in said
    assert "rank 0" in said
    assert "rank 1" in said
    [trace] = (out / "attempts").glob("attempt-00001-rank-*-hang.txt")  # the stopped one can say nothing
    assert "loop.py" in trace.read_text()
    assert not psutil.pid_exists(stopped[0]) or psutil.Process(stopped[0]).status() == psutil.STATUS_ZOMBIE


def worker_pids() -> list[int]:
    """Training workers of this process's own Ray; others on the machine are none of ours."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        try:
            if "RayTrainWorker" in " ".join(process.info["cmdline"] or []) and (
                process.environ().get("RAY_AUTH_TOKEN") == os.environ.get("RAY_AUTH_TOKEN")
            ):
                found.append(process.pid)
        except psutil.Error:
            continue
    return sorted(found)
