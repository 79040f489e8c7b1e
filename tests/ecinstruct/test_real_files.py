"""The real files of the run file smollm2_135m give each of the ten tasks rows to learn from and to be tested on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ecellm.config.load import load_run
from ecellm.config.schema import TASK_IDS, Run
from ecellm.ecinstruct.build import BUILDERS
from ecellm.ecinstruct.samples import Recipe, Samples, Sourced, overlaps
from ecellm.sources.read import FORMAT_TASKS, read_source
from ecellm.sources.tally import Tally

RUN = Path(__file__).parents[2] / "jobs" / "runs" / "smollm2_135m.toml"


@pytest.fixture(scope="module")
def run() -> Run:
    return load_run(str(RUN), [])


@pytest.fixture(scope="module")
def records(run: Run, shared: Path) -> dict[str, list[Sourced]]:
    found: dict[str, list[Sourced]] = {}
    for file in run.sources.files:
        tally = Tally(file.path)
        found[file.path] = [(file.path, record) for record in read_source(file, str(shared / "data"), tally)]
        tally.check(run.sources.max_bad_share)
    return found


def build(task: str, run: Run, records: dict[str, list[Sourced]]) -> Samples:
    files = [file for file in run.sources.files if task in (file.tasks or FORMAT_TASKS[file.format])]
    mine = [record for file in files for record in records[file.path]]
    return BUILDERS[task](task, mine, Recipe.of(run.build, task, run.seed))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASK_IDS)
def test_every_task_has_train_and_test_rows_that_share_nothing(
    task: str, run: Run, records: dict[str, list[Sourced]]
) -> None:
    samples = build(task, run, records)
    assert len(samples.train) >= 50
    assert len(samples.test) >= 20
    assert set(overlaps(samples).values()) == {0}


def test_the_sentiment_test_has_every_option(run: Run, records: dict[str, list[Sourced]]) -> None:
    samples = build("SA", run, records)
    assert {sample.output[0] for sample in samples.test} == set("ABCDE")
    assert {sample.output[0] for sample in samples.train} == set("ABCDE")


def test_labels_made_by_rule_are_never_scored(run: Run, records: dict[str, list[Sourced]]) -> None:
    for task in ("MPC", "PSI", "QPR"):
        sources = Counter(sample.source for sample in build(task, run, records).test)
        assert sources
        assert "esci/exact_only_50_queries.csv" not in sources


def test_no_answer_is_cut_from_its_document(run: Run) -> None:
    from ecellm.sources.documents import LONGEST, SNIPPETS

    assert run.build.max_words >= LONGEST * SNIPPETS
