"""`ecellm score`: two JSON lists of texts in, one JSON object of metrics out, under a named rule."""

from __future__ import annotations

import json
import math
from typing import Any

from ecellm.errors import ConfigError, DataError
from ecellm.tasks.answers import suffix
from ecellm.tasks.base import Case
from ecellm.tasks.registry import task as find_task

RULES = ("paper", "strict")


def score_files(
    task: str,
    setting: str,
    predictions: str,
    labels: str,
    option_labels: str | None = None,
    rule: str = "strict",
    model_family: str = "",
    encoder: str = "",
) -> dict[str, float | int | str | bool]:
    """Metrics of two files that hold JSON lists of strings, aligned by position.

    Args:
        task: any spelling of the task's name.
        option_labels: QPR only: a JSON list of lists of E, S, C, I.
        model_family: `t5` for the authors' T5 variant of the paper rule.
        encoder: AG only: the encoder of BERTScore; without one, only lengths and blanks are scored.

    A number that does not exist is the string `nan`. Raises ConfigError (unknown task or rule) and DataError (a file
    that is no such list, or lists of different lengths).
    """
    found = find_task(task)
    if rule not in RULES:
        raise ConfigError("unknown rule", found=rule, expected=" or ".join(RULES), mend="give --rule paper or strict")
    said, gold = _texts(predictions, blank=True), [text or "" for text in _texts(labels, blank=False)]
    if not (said or gold):
        raise DataError(
            f"{predictions}: an empty list",
            found="no prediction and no label",
            expected="at least one",
            mend="give the files that the evaluation wrote",
        )
    similarity = None
    if encoder and found.id == "AG":
        from ecellm.similarity import Similarity

        similarity = Similarity(encoder)
    case = Case.of(
        said,
        gold,
        setting=setting,
        option_labels=_letters(option_labels) if option_labels else (),
        family=model_family,
        similarity=similarity,
    )
    end = suffix(encoder.removeprefix("wheel:").rstrip("/").rsplit("/", 1)[-1])
    metrics = found.score(case, rule)
    return {key + end if key.startswith("bertscore") else key: _plain(value) for key, value in metrics.items()}


def _plain(value: float) -> float | int | str:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _load(path: str, expected: str) -> list[Any]:
    mend = "write the file as UTF-8 JSON"
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", expected=expected, mend="check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8", found=str(error), expected=expected, mend=mend) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON", found=str(error), expected=expected, mend=mend) from error
    if not isinstance(value, list):
        raise DataError(f"{path}: not a list", found=type(value).__name__, expected=expected, mend=mend)
    return value


def _texts(path: str, *, blank: bool) -> list[str | None]:
    """The list of a file. A prediction may be null: it counts as blank."""
    value = _load(path, "a JSON list of strings")
    for number, text in enumerate(value):
        if not isinstance(text, str) and not (blank and text is None):
            raise DataError(
                f"{path}, element {number}: not a string",
                found=json.dumps(text)[:80],
                expected="a string",
                mend="write every answer as a string",
            )
    return value


def _letters(path: str) -> list[str]:
    value = _load(path, "a JSON list of lists of E, S, C, I")
    for number, letters in enumerate(value):
        whole = isinstance(letters, list | str) and all(letter in ("E", "S", "C", "I") for letter in letters)
        if not whole or not letters:
            raise DataError(
                f"{path}, element {number}: not a list of relevance labels",
                found=json.dumps(letters)[:80],
                expected='["E", "S", "C"]',
                mend="give one of E, S, C, I for each option",
            )
    return ["".join(letters) for letters in value]
