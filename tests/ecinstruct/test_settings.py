"""Settings: which instruction a row carries, and the wording files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ecellm.config.schema import TASK_IDS, Build, Model, Run, Sources
from ecellm.ecinstruct.instructions import OTHERS, Wording, own_wording, parse_wording, unseen_index
from ecellm.ecinstruct.samples import Sample
from ecellm.ecinstruct.settings import to_rows
from ecellm.ecinstruct.wording import harvest, own_wordings
from ecellm.errors import ConfigError, DataError
from ecellm.records import KINDS, SPLITS, Row
from ecellm.tasks.registry import TASKS
from tests.ecinstruct.flow import recipe


def _samples(pool: str, n: int) -> list[Sample]:
    return [Sample(task="MPC", input=f"{pool} {i}", output="A", options="[]") for i in range(n)]


def _made(train: int = 300, **more: object) -> list[Row]:
    pools = {"train": _samples("train", train), "val": _samples("val", 3), "test": _samples("test", 4),
             "ood": _samples("ood", 2)}  # fmt: skip
    how = replace(recipe("MPC"), **more)  # type: ignore[arg-type]
    return [row for split in SPLITS for row in to_rows("MPC", split, pools, how)]


@pytest.mark.parametrize("task", TASK_IDS)
def test_wordings_are_whole(task: str) -> None:
    words = own_wording(task, 1)
    assert len({words.base, *words.others}) == OTHERS + 1
    assert len(words.seen) == 5
    assert words.seen[-1] == words.base
    assert words.unseen not in words.seen
    letters = {"SA": "ABCDE", "MPC": "ABCD", "PRP": "ABC"}.get(task, "")
    assert "".join(option[0] for option in words.options) == letters
    for option in words.options:
        assert TASKS[task].parse(option) == TASKS[task].parse(option[0])
    assert parse_wording(words.to_toml(), task, 7, "again") == words


def test_the_seed_picks_the_unseen_one_as_the_authors_generator_does() -> None:
    """Spec B.0: with seed 1 the second, but for MPC and PSI, whose draws come after 12,000 others."""
    assert {task: unseen_index(task, 1) for task in TASK_IDS} == {**dict.fromkeys(TASK_IDS, 1), "MPC": 4, "PSI": 0}
    assert {unseen_index("AG", seed) for seed in range(40)} == set(range(OTHERS))


def test_rows_of_each_setting() -> None:
    rows = _made()
    counts = Counter((row.split, row.setting) for row in rows)
    assert counts == {
        **{("train", f"IND_{kind}"): 300 for kind in KINDS[:2]},
        **{("val", f"IND_{kind}"): 3 for kind in KINDS[:2]},
        **{("test", f"IND_{kind}"): 4 for kind in KINDS},
        **{("test", f"OOD_{kind}"): 2 for kind in KINDS},
    }
    assert len({(row.id, row.setting) for row in rows}) == len(rows)
    words = own_wording("MPC", 1)
    for row in rows:
        if "Single" in row.setting:
            assert row.instruction == words.base
        elif "Unseen" in row.setting:
            assert row.instruction == words.unseen
        else:
            assert row.instruction in words.seen
        assert (row.few_shot_example is not None) == row.setting.endswith("1-shot")
    shown = [json.loads(row.few_shot_example) for row in rows if row.few_shot_example]
    assert all(set(one) == {"input", "options", "output"} and one["input"].startswith("train ") for one in shown)
    assert len({row.instruction for row in rows if row.setting == "IND_Diverse_Instruction"}) == 5


def test_the_papers_shot_is_the_training_sample_of_the_same_index() -> None:
    rows = [row for row in _made(mends=recipe("MPC", "paper").mends) if row.few_shot_example]
    for row in rows:
        assert json.loads(row.few_shot_example or "")["input"].split() == ["train", row.input.split()[1]]


def test_a_draw_knows_only_its_own_row() -> None:
    def drawn(rows: list[Row]) -> dict[str, str]:
        return {
            row.id: row.instruction for row in rows if row.setting == "IND_Diverse_Instruction" and row.split == "train"
        }

    many, few = drawn(_made()), drawn(_made(200))
    assert few.items() <= many.items()
    assert drawn(_made(seed=2)) != many


def _run(wording: str) -> Run:
    return Run(name="t", out="out", model=Model(base="tiny"), sources=Sources(published="x.json"),
               build=Build(wording=wording))  # fmt: skip


def test_a_users_file_replaces_ours_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    own = Wording("Say so.", ("one", "two", "three", "four", "five"), 2, ())
    (tmp_path / "AG.toml").write_text(own.to_toml())
    assert own_wordings(_run(str(tmp_path))) == {"AG": own}
    (tmp_path / "sa.toml").write_text(own.to_toml())
    with pytest.raises(ConfigError, match=r"sa\.toml: no wording of SA"):
        own_wordings(_run(str(tmp_path)))
    with pytest.raises(ConfigError, match="has no wording"):
        own_wordings(_run(str(tmp_path / "nowhere")))
    assert own_wordings(_run("")) == {}


def test_wording_is_harvested_from_rows_and_makes_the_same_rows() -> None:
    rows = _made()
    # As the published rows are: options in every row.
    rows = [replace(row, options=own_wording("MPC", 1).options_json) for row in rows]
    found = harvest(rows, "rows")["MPC"]
    ours = own_wording("MPC", 1)
    assert (found.base, found.unseen, set(found.seen), found.options) == (
        ours.base, ours.unseen, set(ours.seen), ours.options,
    )  # fmt: skip
    with pytest.raises(DataError, match="the wording of MPC cannot be taken"):
        harvest([*rows, replace(rows[0], instruction="another")], "rows")
    with pytest.raises(DataError, match="no wording in it"):
        harvest([row for row in rows if "Unseen" not in row.setting], "rows")
