"""The stage as a whole, from a small made-up marketplace: all tasks, resuming, determinism, the card."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecellm.config.schema import TASK_IDS, Build, MadeUp, Model, Run, SourceFile, Sources
from ecellm.ecinstruct import build as stage
from ecellm.errors import ConfigError, DataError
from ecellm.records import SETTINGS
from ecellm.rows import read_rows, row_files
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import TASKS

OOD_TASKS = {"AVE", "PRP", "SA", "SR", "AP", "AG"}
SMALL = MadeUp(products=400, users=300, queries=120, questions=600)


def _run(out: Path, **build: object) -> Run:
    return Run(name="t", out=str(out), model=Model(base="tiny"), sources=Sources(made_up=SMALL), build=Build(**build))


def _digests(out: Path) -> dict[str, str]:
    files = [*sorted((out / "rows").rglob("*.parquet")), out / "rows" / "card.json"]
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build") / "out"
    stage.build(_run(out))
    return out


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


def test_the_card(built: Path) -> None:
    card = json.loads((built / "rows" / "card.json").read_text())
    assert card["made_up"] is True
    assert set(card["tasks"]) == set(TASK_IDS)
    for facts in card["tasks"].values():
        assert not any(facts["shared_entities"].values())
        assert facts["fewer_than_asked"]
    assert all(len(source["sha256"]) == 64 for source in card["sources"])
    storage = open_storage(str(built))
    counted = sum(n for facts in card["tasks"].values() for n in facts["rows"]["train"].values())
    assert counted == len(read_rows(storage, split="train"))


def test_second_build_is_skipped_and_a_killed_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run(tmp_path / "out", tasks=("PM", "SA", "AP"))
    calls: list[str] = []
    real = dict(stage.BUILDERS)

    def counted(name: str, *args: object) -> object:
        calls.append(name)
        if name == "AP" and calls.count("AP") == 1:
            raise KeyboardInterrupt
        return real[name](name, *args[1:])  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "BUILDERS", {name: (lambda *a, n=name: counted(n, *a)) for name in real})
    with pytest.raises(KeyboardInterrupt):
        stage.build(run)
    assert not (tmp_path / "out" / "rows" / "COMPLETE").exists()
    stage.build(run)
    assert calls == ["PM", "SA", "AP", "AP"]
    stage.build(run)
    assert len(calls) == 4
    stage.build(_run(tmp_path / "out", tasks=("PM",)))
    assert len(row_files(open_storage(run.out), "rows", "train")) == 1


def test_same_bytes_under_another_hash_seed(built: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from ecellm.config.schema import *; from ecellm.ecinstruct.build import build;"
        "build(Run(name='t', out=sys.argv[1], model=Model(base='tiny'), sources=Sources(made_up=MadeUp("
        f"**{SMALL.model_dump()}))))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=True, env=environment)
    assert _digests(tmp_path / "out") == _digests(built)


def test_paper_recipe_and_hard_negatives_build_too(tmp_path: Path) -> None:
    facts = stage.build(_run(tmp_path / "paper", recipe="paper", tasks=("PM", "SR", "PRP", "SA", "QPR", "AVE")))
    assert all(counts["test"] for counts in facts["samples"].values())
    facts = stage.build(_run(tmp_path / "hard", negatives="hard", tasks=("PM", "SR")))
    assert all(counts["test"] for counts in facts["samples"].values())


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
