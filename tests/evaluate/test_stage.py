"""The stage over real rows and real tiny models, in this process: the pool's actors stand in a plain list."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ecellm.config.schema import Run
from ecellm.errors import CheckpointError, DataError
from ecellm.evaluate import ask
from ecellm.evaluate.log import Answer
from ecellm.evaluate.pool import Batch, Holder
from ecellm.evaluate.run import evaluate
from ecellm.evaluate.scores import RULES
from tests.evaluate.conftest import BOTH, some_rows


class Here:
    """Answers batches where it stands; counts questions; dies after `dies_after` batches."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dies_after = 10**9

    def __call__(
        self, run: Run, system: str, separator: str, batches: Sequence[Batch], on: Callable[[list[Answer]], None]
    ) -> None:
        holder = Holder(run.model_dump_json(), system, separator)
        for number, batch in enumerate(batches):
            if number == self.dies_after:
                raise KeyboardInterrupt
            self.asked.extend(request.key for request in batch)
            on(holder.answer(batch))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    pool = Here()
    monkeypatch.setattr(ask, "answer_all", pool)
    return pool


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_prediction_for_each_row_in_order_and_equal_prompts_are_asked_once(run: Run, here: Here) -> None:
    evaluate(run)
    out = Path(run.out)
    rows = [row for row in some_rows() if row.split == "test" and "Matching" in row.task]
    wanted = [row.id for row in rows if row.setting == BOTH[0]]
    for folder in ("evaluation", "baselines/untuned"):
        found = _lines(out / folder / BOTH[0] / "PM" / "predictions.jsonl")
        assert [line["id"] for line in found] == wanted
        assert set(found[0]) == {"id", "prompt_sha256", "text", "parsed", "finish_reason", "tokens"}
    assert len(here.asked) == len(set(here.asked)) == 2 * (6 + 4)  # two models; the OOD pairs are the IND pairs


def test_scores_keep_the_contract(run: Run, here: Here) -> None:
    evaluate(run)
    for place in ("scores.json", "baselines/untuned/scores.json", "baselines/trivial/always_yes/scores.json"):
        scores = json.loads((Path(run.out) / place).read_text())
        entry = scores[BOTH[0]]["PM"]
        assert set(RULES) <= set(entry)
        assert entry["n"] == 6
        assert 0 <= entry["n_failed"] <= 6
        low, high = entry["strict"]["ci95"]
        assert low <= entry["strict"]["f1"] <= high
        assert entry["strict"]["ci95_metrics"]["f1"] == [low, high]
        assert entry["primary"] == "f1"
    always = json.loads((Path(run.out) / "baselines/trivial/always_yes/scores.json").read_text())
    assert always[BOTH[0]]["PM"]["strict"]["f1"] == pytest.approx(2 / 3)


def test_lexical_rules_are_systems_of_their_own_and_rules_that_are_no_more_go(run: Run, here: Here) -> None:
    old = Path(run.out) / "baselines" / "trivial" / "query_overlap" / "scores.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    scores = evaluate(run)["scores"]
    assert set(scores["lexical/overlap_threshold"][BOTH[0]]) == {"PM"}
    assert (Path(run.out) / "baselines/lexical/overlap_threshold/scores.json").exists()
    assert not old.exists()
    only = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"systems": ("trivial",)})})
    assert {name.split("/")[0] for name in evaluate(only)["scores"]} == {"trivial"}


def test_after_a_kill_only_what_is_missing_is_asked(run: Run, here: Here) -> None:
    run = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"batch_tokens": 60})})
    here.dies_after = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate(run)
    before = set(here.asked)
    assert before
    assert not (Path(run.out) / "scores.json").exists()
    here.asked, here.dies_after = [], 10**9
    evaluate(run)
    assert not before & set(here.asked)
    assert len(before) + len(here.asked) == 20


def test_a_complete_evaluation_is_skipped_and_gives_the_same_scores(run: Run, here: Here) -> None:
    first = evaluate(run)
    here.asked = []
    again = evaluate(run)
    assert again["skipped"]
    assert not here.asked
    assert again["scores"] == first["scores"]


def test_the_limit_keeps_the_same_samples_everywhere(run: Run, here: Here) -> None:
    evaluate(run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"limit": 3})}))
    found = [_lines(Path(run.out) / "evaluation" / s / "PM" / "predictions.jsonl") for s in BOTH]
    assert [line["id"] for line in found[0]] == [line["id"] for line in found[1]]
    assert len(found[0]) == 3


def test_a_model_without_its_prompt_policy_is_refused(run: Run, here: Here) -> None:
    (Path(run.out) / "model" / "prompt.json").unlink()
    with pytest.raises(CheckpointError, match=r"prompt\.json(.|\n)*export"):
        evaluate(run)
    assert not here.asked


def test_a_model_with_another_tokenizer_is_refused(run: Run, here: Here) -> None:
    path = Path(run.out) / "model" / "tokenizer.json"
    path.write_text(path.read_text().replace('"normalizer": null', '"normalizer": {"type": "Lowercase"}'))
    with pytest.raises(CheckpointError, match="another tokenizer"):
        evaluate(run)


def test_no_model_and_no_rows_name_the_command(run: Run, here: Here) -> None:
    import shutil

    shutil.rmtree(Path(run.out) / "model")
    with pytest.raises(CheckpointError, match="ecellm train"):
        evaluate(run)
    shutil.rmtree(Path(run.out) / "rows")
    with pytest.raises(DataError, match="ecellm build"):
        evaluate(run)
