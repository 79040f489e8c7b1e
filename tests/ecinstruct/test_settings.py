"""Settings: which instruction a row carries, and the wording files."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ecellm.config.schema import TASK_IDS
from ecellm.ecinstruct.instructions import OTHERS, wording
from ecellm.ecinstruct.samples import Sample, Samples
from ecellm.ecinstruct.settings import to_rows
from ecellm.records import KINDS
from ecellm.tasks.registry import TASKS


def _samples(pool: str, n: int, start: int = 0) -> tuple[Sample, ...]:
    return tuple(Sample(task="MPC", input=f"{pool} {i}", output="A", options="[]") for i in range(start, n))


def _made(train: int = 300) -> Samples:
    return Samples(
        train=_samples("train", train),
        val=_samples("val", 3),
        test=_samples("test", 4),
        ood=_samples("ood", 2),
        dropped={},
    )


@pytest.mark.parametrize("task", TASK_IDS)
def test_wordings_are_whole(task: str) -> None:
    words = wording(task)
    assert len({words.base, *words.others}) == OTHERS + 1
    assert len(words.seen) == 5
    assert words.seen[-1] == words.base
    assert words.unseen not in words.seen
    letters = {"SA": "ABCDE", "MPC": "ABCD", "PRP": "ABC"}.get(task, "")
    assert "".join(option[0] for option in words.options) == letters
    for option in words.options:
        assert TASKS[task].parse(option) == TASKS[task].parse(option[0])


def test_rows_of_each_setting() -> None:
    rows = list(to_rows("MPC", _made(), 1))
    counts = Counter((row.split, row.setting) for row in rows)
    assert counts == {
        **{("train", f"IND_{kind}"): 300 for kind in KINDS[:2]},
        **{("val", f"IND_{kind}"): 3 for kind in KINDS[:2]},
        **{("test", f"IND_{kind}"): 4 for kind in KINDS},
        **{("test", f"OOD_{kind}"): 2 for kind in KINDS},
    }
    assert len({(row.id, row.setting) for row in rows}) == len(rows)
    words = wording("MPC")
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


def test_a_draw_knows_only_its_own_row() -> None:
    def drawn(samples: Samples, seed: int) -> dict[str, str]:
        rows = to_rows("MPC", samples, seed)
        return {
            row.id: row.instruction for row in rows if row.setting == "IND_Diverse_Instruction" and row.split == "train"
        }

    many, few = drawn(_made(), 1), drawn(_made(200), 1)
    assert few.items() <= many.items()
    assert drawn(_made(), 2) != many
