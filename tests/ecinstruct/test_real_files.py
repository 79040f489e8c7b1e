"""The real files of the run file smollm2_135m give each of the ten tasks rows, by either recipe."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ecellm.config.load import load_run
from ecellm.config.schema import TASK_IDS, Run
from ecellm.ecinstruct.build import build
from ecellm.ecinstruct.leaks import RECUR
from ecellm.records import Row
from ecellm.rows import read_rows
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import TASKS

ROOT = Path(__file__).parents[2]
RUN = ROOT / "jobs" / "runs" / "smollm2_135m.toml"
CARDS = ROOT / "docs" / "results" / "ecinstruct-real-files"
OWN_SPLITS_OFF = {"test_share": "0.1", "val_share": "0.1"}
"""What the paper's recipe insists on."""


@dataclass(frozen=True)
class Built:
    run: Run
    card: dict[str, Any]
    rows: dict[str, list[Row]]

    def samples(self, task: str, pool: str) -> list[Row]:
        """One row of each sample, of a split in domain."""
        wanted = (TASKS[task].name, "IND_Diverse_Instruction")  # type: ignore[index]
        return [row for row in self.rows[pool] if (row.task, row.setting) == wanted]


@pytest.fixture(scope="module", params=["sound", "paper"])
def built(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp(request.param) / "out"
    settings = {"out": str(out), "sources.root": str(shared / "data"), "build.recipe": request.param}
    if request.param == "paper":
        settings |= {f"build.{name}": value for name, value in OWN_SPLITS_OFF.items()}
    run = load_run(str(RUN), [word for name, value in settings.items() for word in (f"--{name}", value)])
    build(run)
    storage = open_storage(str(out))
    rows = {split: read_rows(storage, split=split) for split in ("train", "test")}
    return Built(run, json.loads((out / "rows" / "card.json").read_text()), rows)


@pytest.mark.parametrize("task", TASK_IDS)
def test_every_task_has_rows_to_learn_from_and_to_be_tested_on(task: str, built: Built) -> None:
    assert len(built.samples(task, "train")) >= 50
    # the paper splits off a tenth of the few queries that were judged here
    assert len(built.samples(task, "test")) >= (20 if built.card["recipe"] == "sound" else 5)


def test_the_committed_cards_are_made_again_to_the_byte(built: Built) -> None:
    for name in ("card.json", "README.md"):
        made = Path(built.run.out) / "rows" / name
        assert made.read_bytes() == (CARDS / built.card["recipe"] / name).read_bytes(), (
            "commit it if the change is meant"
        )


def test_the_card_counts_every_line_and_every_drop(built: Built) -> None:
    assert set(built.card["tasks"]) == set(TASK_IDS)
    for facts in built.card["tasks"].values():
        assert sum(facts["samples"].values()) > 0
        assert facts["dropped"]
        assert "train-test" in facts["leaks"]
        for tally in facts["sources"].values():
            # A format of several tables reads a line for each; none is lost without a count.
            assert tally["bad"] + tally["skipped"] <= tally["lines"] <= tally["used"] + tally["bad"] + tally["skipped"]


def test_sound_splits_share_nothing(built: Built) -> None:
    if built.card["recipe"] == "paper":
        assert built.card["leaks_where_none_are_promised"], "the paper's splits share reviewers and products"
        return
    assert built.card["leaks_where_none_are_promised"] == {}
    for task, facts in built.card["tasks"].items():
        # test and out of domain are both tests: they may share a product, as held-out attributes of it do
        leaks = {pair: counts for pair, counts in facts["leaks"].items() if pair != "test-ood"}
        promised = [(kind, n) for counts in leaks.values() for kind, n in counts.items()]
        assert {n for kind, n in promised if task not in RECUR or kind != "products"} == {0}


def test_the_sentiment_test_has_every_option(built: Built) -> None:
    for pool in ("train", "test"):
        assert {row.output[0] for row in built.samples("SA", pool)} == set("ABCDE")


def test_labels_made_by_rule_are_never_scored(built: Built) -> None:
    for task in ("MPC", "PSI", "QPR"):
        sources = Counter(row.source for row in built.samples(task, "test"))
        assert sources
        assert not [source for source in sources if "exact_only" in source]


def test_no_answer_is_cut_from_its_document(built: Built) -> None:
    from ecellm.sources.documents import LONGEST, SNIPPETS

    assert built.run.build.max_words >= LONGEST * SNIPPETS
