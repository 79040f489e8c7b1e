"""The stage over real rows and real tiny models, in this process: the pool's actors stand in a plain list."""

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ecellm.config.schema import Run
from ecellm.errors import CheckpointError, DataError, Stopped
from ecellm.evaluate import ask
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.holder import Holder
from ecellm.evaluate.plan import Unit
from ecellm.evaluate.pool import OnAnswers
from ecellm.evaluate.run import evaluate
from ecellm.evaluate.scores import RULES
from ecellm.evaluate.voices import Voice
from tests.evaluate.conftest import BOTH, some_rows


class Here:
    """Answers units where it stands; counts questions; dies after `dies_after` units."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dies_after = 10**9
        self.then: Callable[[], None] = lambda: None

    def __call__(
        self, run: Run, voices: Mapping[str, Voice], units: Sequence[Unit], on: OnAnswers, stopping: Callable[[], bool]
    ) -> dict[str, Facts]:
        holder = Holder(run.model_dump_json(), "here-")
        found = {}
        for number, unit in enumerate(units):
            if number == self.dies_after:
                raise KeyboardInterrupt
            if stopping():
                raise Stopped("stopped")
            self.asked.extend(request.key for request in unit.requests)
            for answers in holder.answer(voices[unit.model], unit.requests):
                on(unit.model, answers)
            found[unit.model] = holder.facts()
            self.then()
        return found


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    pool = Here()
    monkeypatch.setattr(ask, "answer_all", pool)
    return pool


def changed(run: Run, **settings: Any) -> Run:
    return run.model_copy(
        update={"evaluate": type(run.evaluate).model_validate({**run.evaluate.model_dump(), **settings})}
    )


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
        items = json.loads((out / folder / BOTH[0] / "PM" / "items.json").read_text())
        assert items["ids"] == wanted
        assert len(items["items"]) == len(wanted)
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
        if entry["paper"]["f1"] is None:  # the paper's rule has dropped every row
            assert entry["paper"]["ci95"] is None
        else:
            low, high = entry["paper"]["ci95"]
            assert low <= entry["paper"]["f1"] <= high
        assert entry["primary"] == "f1"
        assert sum(entry["failures"].values()) == entry["n_failed"]
        assert sum(sum(line.values()) for line in entry["confusion"].values()) == 6
        assert entry["decoding"] == ("" if "trivial" in place else "greedy")
    always = json.loads((Path(run.out) / "baselines/trivial/always_yes/scores.json").read_text())
    assert always[BOTH[0]]["PM"]["strict"]["f1"] == pytest.approx(2 / 3)
    assert always[BOTH[0]]["PM"]["by_class"]["yes"]["recall"] == 1
    assert always[BOTH[0]]["PM"]["by_source"]["made up"]["n"] == 6


def test_what_the_models_did_is_recorded(run: Run, here: Here) -> None:
    evaluate(run)
    voices = json.loads((Path(run.out) / "evaluation/COMPLETE").read_text())["voices"]
    assert set(voices) == {"tuned", "untuned"}
    assert voices["tuned"]["way"] == "packed"
    assert 0 < voices["tuned"]["saved_share"] < 1
    assert json.loads((Path(run.out) / "run.json").read_text())["evaluation"] == voices


def test_choice_gives_valid_answers_and_says_how_sure_it_is(run: Run, here: Here) -> None:
    scores = evaluate(changed(run, systems=["untuned"], also=["choice"]))["scores"]
    assert set(scores) == {"untuned", "untuned@choice"}
    entry = scores["untuned@choice"][BOTH[0]]["SA"]
    assert entry["decoding"] == "choice"
    assert entry["n_failed"] == 0
    assert entry["calibration"]["n"] == 4
    assert sum(line[2] for line in entry["calibration"]["bins"]) == 4
    said = _lines(Path(run.out) / "baselines/untuned@choice" / BOTH[0] / "SA/predictions.jsonl")[0]
    assert said["decoding"] == said["finish_reason"] == "choice"
    shares = said["shares"]
    assert isinstance(shares, dict)
    assert set(shares) == set(json.loads(some_rows()[-1].options or ""))
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)


def test_a_main_decoding_that_does_not_apply_is_greedy_and_says_so(run: Run, here: Here) -> None:
    scores = evaluate(changed(run, systems=["untuned"], decoding="constrained"))["scores"]
    assert scores["untuned"][BOTH[0]]["PM"]["decoding"] == "greedy"


def test_worked_examples_stand_before_the_prompt_and_share_the_base_models_log(run: Run, here: Here) -> None:
    scores = evaluate(changed(run, systems=["untuned", "few_shot"], shots=2))["scores"]
    assert set(scores) == {"untuned", "few_shot"}
    marker = json.loads((Path(run.out) / "evaluation/COMPLETE").read_text())
    assert set(marker["voices"]) == {"untuned"}
    assert marker["voices"]["untuned"]["requests"] == 2 * 10


def test_prompts_of_another_kind_are_asked_though_rows_and_models_are_the_same(run: Run, here: Here) -> None:
    only = changed(run, systems=["untuned"])
    evaluate(only)
    assert evaluate(only)["skipped"]
    policy = Path(run.out) / "prompt.json"
    for place in (policy, Path(run.out) / "model" / "prompt.json"):
        if place.exists():
            place.write_text(place.read_text().replace('"alpaca"', '"mistral"'))
    assert not evaluate(only)["skipped"]


def test_another_model_folder_is_a_system_of_its_own(run: Run, here: Here) -> None:
    other = {"name": "other", "model": str(Path(run.out) / "base")}
    scores = evaluate(changed(run, systems=["untuned"], models=[other]))["scores"]
    assert scores["other"] == scores["untuned"]


def test_trained_baselines_are_rows_of_the_scoreboard_and_kept(run: Run, here: Here, monkeypatch: Any) -> None:
    from ecellm.evaluate import trained

    calls: list[object] = []

    def at_once(run: Run, storage: Any, jobs: Any, test: Any, stopping: Any) -> Any:
        for job in jobs:
            calls.append(job)
            known = trained._known(run, storage, job[1])
            yield job, trained.train_one(run.model_dump_json(), job, known, [row for _, row in test[job[1]]])

    monkeypatch.setattr(trained, "_run_all", at_once)
    run = changed(run, systems=["trivial", "tfidf"])
    scores = evaluate(run)["scores"]
    assert set(scores["tfidf"][BOTH[0]]) == {"PM", "SA"}
    assert sorted(map(str, calls)) == ["('tfidf', 'PM')", "('tfidf', 'SA')"]
    calls.clear()
    (Path(run.out) / "evaluation/COMPLETE").unlink()
    assert evaluate(run)["scores"]["tfidf"] == scores["tfidf"]
    assert not calls


def test_several_runs_share_answers(run: Run, here: Here, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run.out, tmp_path / "second")
    evaluate(changed(run, answers=str(tmp_path / "shared"), systems=["untuned"]))
    assert len(here.asked) == 10
    second = run.model_copy(update={"out": str(tmp_path / "second")})
    evaluate(changed(second, answers=str(tmp_path / "shared"), systems=["untuned"]))
    assert len(here.asked) == 10


def test_lexical_rules_are_systems_of_their_own_and_rules_that_are_no_more_go(run: Run, here: Here) -> None:
    old = Path(run.out) / "baselines" / "trivial" / "query_overlap" / "scores.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    scores = evaluate(run)["scores"]
    assert set(scores["lexical/overlap_threshold"][BOTH[0]]) == {"PM"}
    assert (Path(run.out) / "baselines/lexical/overlap_threshold/scores.json").exists()
    assert not old.exists()
    assert {name.split("/")[0] for name in evaluate(changed(run, systems=["trivial"]))["scores"]} == {"trivial"}


def test_after_a_kill_only_what_is_missing_is_asked(run: Run, here: Here) -> None:
    here.dies_after = 1
    with pytest.raises(KeyboardInterrupt):
        evaluate(run)
    before = set(here.asked)
    assert before
    assert not (Path(run.out) / "scores.json").exists()
    here.asked, here.dies_after = [], 10**9
    evaluate(run)
    assert not before & set(here.asked)
    assert len(before) + len(here.asked) == 20


def test_a_request_to_stop_ends_with_the_answers_kept(run: Run, here: Here) -> None:
    here.then = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
        evaluate(run)
    before = set(here.asked)
    here.asked, here.then = [], lambda: None
    evaluate(run)
    assert not before & set(here.asked)


def test_a_complete_evaluation_is_skipped_and_gives_the_same_scores(run: Run, here: Here) -> None:
    first = evaluate(run)
    here.asked = []
    again = evaluate(run)
    assert again["skipped"]
    assert not here.asked
    assert again["scores"] == first["scores"]


def test_the_limit_keeps_the_same_samples_everywhere(run: Run, here: Here) -> None:
    evaluate(changed(run, limit=3))
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
