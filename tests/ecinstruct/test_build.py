"""The stage as a whole, from a small made-up marketplace: all tasks, resuming, determinism, the card."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ecellm.config.schema import TASK_IDS, Build, MadeUp, Model, Run, Sizes, SourceFile, Sources
from ecellm.ecinstruct import build as stage
from ecellm.ecinstruct.flow import perform
from ecellm.errors import ConfigError, DataError
from ecellm.records import SETTINGS
from ecellm.rows import read_rows, row_files
from ecellm.sources.marketplace.write import source_files
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import TASKS

OOD_TASKS = {"AVE", "PRP", "SA", "SR", "AP", "AG"}
SMALL = MadeUp(products=400, users=300, queries=120, questions=600)


def _run(out: Path, **build: Any) -> Run:
    return Run(name="t", out=str(out), model=Model(base="tiny"), sources=Sources(made_up=SMALL), build=Build(**build))


def _on_files(out: Path, raw: Path, shuffle: int = 0, **build: Any) -> Run:
    """The same from the files, listed in another order."""
    files = list(source_files())
    random.Random(shuffle).shuffle(files)
    return Run(name="t", out=str(out), model=Model(base="tiny"), build=Build(**build),
               sources=Sources(root=str(raw), files=tuple(files)))  # fmt: skip


def _digests(out: Path, *, card: bool = True) -> dict[str, str]:
    files = sorted((out / "rows").rglob("*.parquet"))
    files += [out / "rows" / "card.json", out / "rows" / "README.md"] if card else []
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build") / "out"
    stage.build(_run(out))
    return out


@pytest.fixture(scope="module")
def undisturbed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The same from the files, in this process; and how many bundles that took."""
    out, bundles = tmp_path_factory.mktemp("plain") / "out", []
    real = perform.Writer.close
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perform.Writer, "close", lambda self, facts: bundles.append(1) or real(self, facts))
        stage.build(_on_files(out, built / "raw"))
    return out, len(bundles)


@pytest.fixture
def plain(undisturbed: tuple[Path, int]) -> Path:
    return undisturbed[0]


def test_all_tasks_and_settings(built: Path) -> None:
    storage = open_storage(str(built))
    test = read_rows(storage, split="test")
    here = {(row.task, row.setting) for row in test}
    for setting in SETTINGS:
        wanted = {TASKS[task].name for task in TASK_IDS if setting.startswith("IND") or task in OOD_TASKS}
        assert {task for task, found in here if found == setting} == wanted
    assert {row.task for row in read_rows(storage, split="train")} == {task.name for task in TASKS.values()}
    for row in test:
        assert row.source.endswith("(made up)")
        assert TASKS[next(t for t in TASK_IDS if TASKS[t].name == row.task)].parse(row.output) is not None
        assert (row.option_labels is not None) == (row.task == "Query_Product_Rank")
    assert not (built / "rows" / "work").exists()


def test_the_card(built: Path) -> None:
    card = json.loads((built / "rows" / "card.json").read_text())
    assert card["made_up"] is True
    assert set(card["tasks"]) == set(TASK_IDS)
    assert card["leaks_where_none_are_promised"] == {}
    assert card["categories_in_and_out"] == ["Tools_and_Home_Improvement"]
    assert card["mends"]["disjoint_splits"]["on"]
    assert not card["mends"]["time_split"]["on"]
    assert all(len(mend["why"]) > 20 for mend in card["mends"].values())
    for facts in card["tasks"].values():
        assert facts["fewer_than_asked"]
        assert facts["leaks"]["train-test"]["near_duplicate_inputs"] == 0
        assert all(isinstance(n, int) for counts in facts["dropped"].values() for n in counts.values())
    assert card["tasks"]["MPC"]["dropped"]["locale other than us"]["train"] > 0
    assert all(len(source["sha256"]) == 64 and source["licence"] for source in card["sources"])
    storage = open_storage(str(built))
    counted = sum(n for facts in card["tasks"].values() for n in facts["rows"]["train"].values())
    assert counted == len(read_rows(storage, split="train"))


def test_the_data_card_is_one_that_the_hub_reads(built: Path) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard((built / "rows" / "README.md").read_text())
    assert card.data.language == ["en"]
    assert card.data.configs[0]["data_files"][1] == {"split": "validation", "path": "val/*.parquet"}
    assert "Made-up" in card.text
    for line in card.text.splitlines():
        assert not line.startswith("|") or line.rstrip().endswith("|")


def test_the_rows_folder_is_a_data_set(built: Path) -> None:
    """`datasets` opens it by its README, split by split."""
    from datasets import load_dataset

    streams = load_dataset(str(built / "rows"), streaming=True)
    assert set(streams) == {"train", "validation", "test"}
    first = next(iter(streams["test"]))
    assert list(first)[:8] == [
        "split", "task", "setting", "instruction", "input", "options", "output", "few_shot_example",
    ]  # fmt: skip


@pytest.mark.heavy
def test_same_bytes_for_any_workers_order_and_hash_seed(built: Path, plain: Path, tmp_path: Path) -> None:
    """1 worker and 4, the files in another order, two hash seeds: the same rows, and but for paths the same card."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[4]); from tests.ecinstruct import test_build as t;"
        "t.stage.build(t._on_files(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]),"
        "workers=int(sys.argv[3])))"
    )
    root = Path(__file__).resolve().parents[2]
    for workers, hash_seed in ((1, "4711"), (4, "0")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
        words = [sys.executable, "-c", code, str(tmp_path / str(workers)), str(built / "raw"), str(workers), str(root)]
        subprocess.run(words, check=True, env=environment)
    one, four = _digests(tmp_path / "1"), _digests(tmp_path / "4")
    assert one == four
    assert len(one) == 32
    assert _digests(plain) == one


def test_more_parts_give_the_same_rows(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecellm.ecinstruct.flow.job.PART_BYTES", 200_000)
    monkeypatch.setattr("ecellm.ecinstruct.flow.job.PIECE_BYTES", 30_000)
    monkeypatch.setattr("ecellm.ecinstruct.flow.job.PIECES", 10**9)
    stage.build(_run(tmp_path / "out"))
    assert _digests(tmp_path / "out") == _digests(built)


@pytest.mark.parametrize("after", [3, 40])
def test_a_build_killed_anywhere_goes_on_to_the_same_bytes(
    built: Path, undisturbed: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Interrupted in the middle of writing a bundle; the bundles before are not made again."""
    run = _on_files(tmp_path / "out", built / "raw")
    written: list[str] = []
    real = perform.Writer.close

    def close(self: Any, facts: Any) -> None:
        written.append("one")
        if len(written) == after:
            raise KeyboardInterrupt
        real(self, facts)

    monkeypatch.setattr(perform.Writer, "close", close)
    with pytest.raises(KeyboardInterrupt):
        stage.build(run)
    assert not (tmp_path / "out" / "rows" / "COMPLETE").exists()
    stage.build(run)
    plain, bundles = undisturbed
    assert _digests(tmp_path / "out") == _digests(plain)
    assert len(written) == bundles + 1  # each bundle once, and the broken one twice


def test_a_build_killed_while_it_draws_does_nothing_twice_but_the_task_that_it_drew(
    built: Path, undisturbed: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[str] = []
    bundles: list[int] = []
    real, close = stage.run_waves.__globals__["finish_task"], perform.Writer.close

    def finish(job: Any, task: str) -> Any:
        finished.append(task)
        if len(finished) == 4:
            raise KeyboardInterrupt
        return real(job, task)

    monkeypatch.setattr("ecellm.ecinstruct.flow.waves.finish_task", finish)
    monkeypatch.setattr(perform.Writer, "close", lambda self, facts: bundles.append(1) or close(self, facts))
    run = _on_files(tmp_path / "out", built / "raw")
    with pytest.raises(KeyboardInterrupt):
        stage.build(run)
    stage.build(run)
    assert sorted(finished) == sorted([*TASK_IDS, finished[3]])
    assert len(bundles) == undisturbed[1]
    assert _digests(tmp_path / "out") == _digests(undisturbed[0])


def test_what_a_kill_after_the_last_task_left_behind_goes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _on_files(tmp_path / "out", built / "raw", tasks=("PM",))
    with monkeypatch.context() as patch:

        def killed(self: Any) -> None:
            if (tmp_path / "out/rows/tasks/PM/COMPLETE").exists():
                raise KeyboardInterrupt

        patch.setattr("ecellm.ecinstruct.flow.scratch.Scratch.clear", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.build(run)
    assert list((tmp_path / "out/rows/work").iterdir())
    stage.build(run)
    assert not (tmp_path / "out/rows/work").exists()


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_a_build_on_ray_that_is_killed_again_and_again_ends_with_the_same_bytes(
    built: Path, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    """kill -9 of the driver and of all that it started, three times, the last one late."""
    out, (plain, bundles) = tmp_path / "out", undisturbed
    run = _on_files(out, built / "raw", workers=2)
    code = (
        "import sys; from ecellm.config.schema import Run; from ecellm.ecinstruct.build import build;"
        "build(Run.model_validate_json(sys.argv[1]))"
    )
    words = [sys.executable, "-c", code, run.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for share in (0.2, 0.6, 0.95):
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and _parts(out) < share * bundles:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "rows" / "COMPLETE").exists()
    subprocess.run(words, check=True, env=environment)
    assert _digests(out) == _digests(plain)


def _parts(out: Path) -> int:
    """Bundles that a build has written until now."""
    return sum(1 for path in (out / "rows" / "work").rglob("*") if path.is_file() and path.suffix == "")


def test_a_finished_task_is_not_built_again(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[str] = []
    monkeypatch.setattr(
        "ecellm.ecinstruct.flow.waves.finish_task",
        lambda job, task, real=stage.run_waves.__globals__["finish_task"]: finished.append(task) or real(job, task),
    )
    stage.build(_on_files(tmp_path / "out", built / "raw", tasks=("PM",)))
    stage.build(_on_files(tmp_path / "out", built / "raw", tasks=("PM", "SA")))
    assert finished == ["PM", "SA"]
    stage.build(_on_files(tmp_path / "out", built / "raw", tasks=("PM", "SA")))
    assert len(finished) == 2
    stage.build(_on_files(tmp_path / "out", built / "raw", tasks=("PM",)))
    assert len(row_files(open_storage(str(tmp_path / "out")), "rows", "train")) == 1


def test_paper_recipe_and_random_negatives_build_too(built: Path, tmp_path: Path) -> None:
    facts = stage.build(_on_files(tmp_path / "paper", built / "raw", recipe="paper"))
    assert all(counts["test"] for counts in facts["samples"].values())
    card = json.loads((tmp_path / "paper" / "rows" / "card.json").read_text())
    assert card["leaks_where_none_are_promised"]["SR"]
    assert card["tasks"]["SR"]["leaks"]["train-test"]["users"] > 0
    facts = stage.build(_on_files(tmp_path / "random", built / "raw", negatives="random", tasks=("PM", "SR")))
    assert all(counts["test"] for counts in facts["samples"].values())


def test_a_category_that_is_held_out_can_be_held_out_everywhere(built: Path, tmp_path: Path) -> None:
    run = _on_files(tmp_path / "out", built / "raw", tasks=("AP", "SA"), mends={"clean_ood": True})
    stage.build(run)
    card = json.loads((tmp_path / "out" / "rows" / "card.json").read_text())
    assert card["categories_in_and_out"] == []
    assert card["tasks"]["AP"]["dropped"]["category held out by another task"]["train"] > 20


def test_sizes_are_kept_and_what_is_over_is_counted(built: Path, tmp_path: Path) -> None:
    sizes = Sizes(train=20, val=5, test=6, ood=4)
    stage.build(_on_files(tmp_path / "out", built / "raw", sizes=sizes))
    card = json.loads((tmp_path / "out" / "rows" / "card.json").read_text())
    for task, facts in card["tasks"].items():
        assert facts["samples"] == {"train": 20, "val": 5, "test": 6, "ood": 4 if task in OOD_TASKS else 0}, task
        assert facts["dropped"]["more than asked"]
        assert facts["fewer_than_asked"] == {}


def test_errors_name_the_mend(tmp_path: Path) -> None:
    gone = SourceFile(format="amazon_google", path="gone", tasks=("PM",))
    base = {"name": "t", "out": str(tmp_path / "out"), "model": Model(base="tiny")}
    run = Run(**base, sources=Sources(root=str(tmp_path), files=(gone,)), build=Build(tasks=("PM",)))
    with pytest.raises(DataError, match="no such file"):
        stage.build(run)
    with pytest.raises(ConfigError, match="no source for PM, SA"):
        stage.build(Run(**base, build=Build(tasks=("PM", "SA"))))
    (tmp_path / "a.json").write_text('{"overall": 5}\n{x\n')
    bad = SourceFile(format="amazon_reviews", path="a.json")
    run = Run(**base, sources=Sources(root=str(tmp_path), files=(bad,)), build=Build(tasks=("SA",)))
    with pytest.raises(DataError, match="line 2"):
        stage.build(run)
    (tmp_path / "b.json").write_text('{"reviewerID": "u", "asin": "p", "overall": 5, "reviewText": "short"}\n')
    short = SourceFile(format="amazon_reviews", path="b.json")
    run = Run(**base, sources=Sources(root=str(tmp_path), files=(short,)), build=Build(tasks=("SA",)))
    with pytest.raises(DataError, match="SA: no training sample") as caught:
        stage.build(run)
    assert "1 fewer than 10 words" in str(caught.value)


def test_real_gift_cards(shared: Path, tmp_path: Path) -> None:
    files = (SourceFile(format="amazon_google", path="amazon_google"),
             SourceFile(format="amazon_reviews", path="amazon2018/Gift_Cards_5.json.gz"),
             SourceFile(format="amazon_metadata", path="amazon2018/meta_Gift_Cards.json.gz"))  # fmt: skip
    tasks = Build(tasks=("PM", "PRP", "SA", "SR"))
    run = Run(name="t", out=str(tmp_path / "out"), model=Model(base="tiny"), build=tasks,
              sources=Sources(root=str(shared / "data"), files=files))  # fmt: skip
    samples = stage.build(run)["samples"]
    assert samples["PM"]["test"] >= 150
    assert all(counts["train"] > 200 and counts["test"] >= 20 for counts in samples.values())
