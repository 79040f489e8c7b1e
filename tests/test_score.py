"""`ecellm score`: two files in, one object out; what is no list of strings is refused with a mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ecellm.cli.app import app
from ecellm.errors import ConfigError, DataError
from ecellm.score import score_files

SETTING = "IND_Diverse_Instruction"


def files(folder: Path, predictions: Any, labels: Any) -> tuple[str, str]:
    paths = folder / "predictions.json", folder / "labels.json"
    for path, content in zip(paths, (predictions, labels), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(paths[0]), str(paths[1])


def test_the_command_prints_one_object_in_full_precision(tmp_path: Path) -> None:
    said, gold = files(tmp_path, ["yes", "no", "maybe"], ["yes", "yes", "no"])
    result = CliRunner().invoke(
        app, ["score", "--task", "Product_Substitue_Identification", "--setting", SETTING, "--predictions", said,
              "--labels", gold, "--rule", "strict", "--json"],
    )  # fmt: skip
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed == score_files("PSI", SETTING, said, gold, None, "strict", "")
    assert printed["acc"] == 1 / 3
    assert printed["n_invalid"] == 1


def test_a_number_that_does_not_exist_is_the_string_nan(tmp_path: Path) -> None:
    said, gold = files(tmp_path, ["?", None], ["A", "B"])
    found = score_files("SR", SETTING, said, gold, None, "paper", "")
    assert found["recall@1"] == "nan"
    assert found["#invalid"] == 2


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ("{", ["yes"], "not JSON"),
        ({"a": 1}, ["yes"], "not a list"),
        ([1], ["yes"], "element 0: not a string"),
        (["yes"], [None], "element 0: not a string"),
        (["yes", "no"], ["yes"], "differ in number"),
        ([], [], "an empty list"),
        ("[" * 100_000, ["yes"], "not JSON"),
    ],
)
def test_faulty_files_are_refused_with_a_mend(tmp_path: Path, predictions: Any, labels: Any, message: str) -> None:
    said, gold = files(tmp_path, predictions, labels)
    with pytest.raises(DataError, match=message) as caught:
        score_files("PM", SETTING, said, gold, None, "strict", "")
    assert caught.value.mend


def test_missing_files_bytes_and_relevance_labels_are_refused(tmp_path: Path) -> None:
    said, gold = files(tmp_path, ["A,B"], ["A,B"])
    with pytest.raises(DataError, match=r"absent\.json"):
        score_files("QPR", SETTING, str(tmp_path / "absent.json"), gold, None, "strict", "")
    with pytest.raises(DataError, match="relevance labels are missing"):
        score_files("QPR", SETTING, said, gold, None, "strict", "")
    odd = tmp_path / "odd.json"
    odd.write_text('[["E", "X"]]')
    with pytest.raises(DataError, match="element 0: not a list of relevance labels"):
        score_files("QPR", SETTING, said, gold, str(odd), "strict", "")
    odd.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="not UTF-8"):
        score_files("QPR", SETTING, str(odd), gold, None, "strict", "")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    said, gold = files(tmp_path, ["yes"], ["yes"])
    with pytest.raises(ConfigError, match="Product_Guessing"):
        score_files("Product_Guessing", SETTING, said, gold)
    with pytest.raises(ConfigError, match="unknown rule"):
        score_files("PM", SETTING, said, gold, None, "kind")
