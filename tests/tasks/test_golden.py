"""Both rules against the authors' evaluator: every number of the golden set, edge cases included, to 1e-9."""

import hashlib
import json
import math
from pathlib import Path

import pytest

from ecellm.errors import EcellmError
from ecellm.score import score_files
from ecellm.tasks.answers import cut
from ecellm.tasks.base import Case
from ecellm.tasks.registry import task


def cases(shared: Path) -> list[Path]:
    return sorted(p for p in (shared / "golden" / "eval").iterdir() if p.is_dir())


def compare(got: dict, expected: dict, where: str) -> None:
    for key, value in expected.items():
        if key == "setting":
            continue
        assert key in got, f"{where}: {key} is missing in {got}"
        if value == "nan":
            assert math.isnan(float(got[key])), f"{where}: {key} is {got[key]}, not NaN"
        else:
            assert got[key] == pytest.approx(value, abs=1e-9), f"{where}: {key}"


def score(folder: Path, expected: dict, setting: str, rule: str) -> dict:
    options = folder / "option_labels.json"
    return score_files(
        expected["task_in_evaluator"],
        setting,
        str(folder / "predictions.json"),
        str(folder / "labels.json"),
        str(options) if options.exists() else None,
        rule,
        "t5" if "T5" in expected["evaluator"] else "",
    )


def test_cases(shared: Path) -> None:
    folders = cases(shared)
    assert len(folders) == 17
    for folder in folders:
        expected = json.loads((folder / "expected.json").read_text())
        if "paper" in expected:
            compare(score(folder, expected, expected["setting"], "paper"), expected["paper"], folder.name)
        if other := expected.get("paper_other_setting"):
            compare(score(folder, expected, other["setting"], "paper"), other, f"{folder.name} other setting")
        if "strict" in expected and not folder.name.startswith("AG"):  # AG's are looked at below
            compare(score(folder, expected, expected["setting"], "strict"), expected["strict"], folder.name)


def test_answers_are_cut_for_bleurt_alone(shared: Path) -> None:
    folder = shared / "golden" / "eval" / "AG_IND"
    expected = json.loads((folder / "expected.json").read_text())
    found = score(folder, expected, expected["setting"], "strict")
    n = len(json.loads((folder / "labels.json").read_text()))
    assert found["n_invalid"] == expected["strict"]["n_invalid_blank_predictions"]
    assert round(found["cut_labels"] * n) == expected["text_handling"]["labels_changed"]
    assert round(found["cut_predictions"] * n) == expected["text_handling"]["predictions_changed"]


def test_edge_cases(shared: Path) -> None:
    edge = json.loads((shared / "golden" / "eval" / "edge_cases.json").read_text())
    assert len(edge) > 30
    for one in edge:
        case = Case.of(
            one["predictions"],
            one["labels"],
            setting=one["setting"],
            option_labels=one.get("option_labels", ()),
            family="t5" if "T5" in one["evaluator"] else "",
        )
        found = task(one["task_in_evaluator"])
        if len(one["predictions"]) != len(one["labels"]):
            with pytest.raises(EcellmError, match="differ in number"):
                found.score(case, "paper")
            continue
        paper = found.score(case, "paper")
        compare(paper, one.get("paper_tolerant") or one["reference"].get("numbers", {}), one["id"])
        if "numbers" in one["reference"]:
            assert "reference_would_raise" not in paper, one["id"]
        elif "raises" in one["reference"]:
            assert paper["reference_would_raise"], one["id"]
        if one.get("strict"):
            compare(found.score(case, "strict"), one["strict"], one["id"])


def test_texts_for_bleurt_are_the_authors_to_the_byte(shared: Path) -> None:
    folder = shared / "golden" / "eval" / "AG_IND"
    expected = json.loads((folder / "expected.json").read_text())["text_handling"]
    for name in ("labels", "predictions"):
        texts = [cut(text) for text in json.loads((folder / f"{name}.json").read_text())]
        written = json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()
        assert hashlib.sha256(written).hexdigest() == expected[f"bleurt_{name}_sha256"]
