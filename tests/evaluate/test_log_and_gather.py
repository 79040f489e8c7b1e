"""The log keeps what was answered through a kill; the gather knows once from twice and never."""

from pathlib import Path

import pytest

from ecellm.errors import ClusterError, StorageError
from ecellm.evaluate.gather import Gather
from ecellm.evaluate.log import Answer, AnswerLog
from ecellm.evaluate.requests import Asked
from ecellm.storage.local import LocalStorage


def _answer(key: str, text: str = "yes") -> Answer:
    return Answer(key=key, text=text, tokens=1, finish_reason="stop")


def _log(folder: Path) -> AnswerLog:
    return AnswerLog(LocalStorage(str(folder)), "answers/tuned", clock=lambda: 0.0)


def test_what_was_flushed_is_there_again(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.add([_answer("a"), _answer("b", "no\nline")])
    assert _log(tmp_path).answers() == {}  # not flushed: a kill here loses it
    log.flush()
    log.add([_answer("c")])
    log.flush()
    assert {key: one.text for key, one in _log(tmp_path).answers().items()} == {"a": "yes", "b": "no\nline", "c": "yes"}


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.add([_answer("a"), _answer("b")])
    log.flush()
    part = next((tmp_path / "answers/tuned").glob("part-*.jsonl"))
    part.write_bytes(part.read_bytes()[:-9])
    assert set(_log(tmp_path).answers()) == {"a"}


def test_a_broken_line_inside_is_named(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.add([_answer("a"), _answer("b")])
    log.flush()
    part = next((tmp_path / "answers/tuned").glob("part-*.jsonl"))
    part.write_bytes(b"{nonsense\n" + part.read_bytes())
    with pytest.raises(StorageError, match=r"part-000001.jsonl:1.*\n.*nonsense"):
        _log(tmp_path).answers()


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    one, two = _log(tmp_path), _log(tmp_path)
    for log, key in ((one, "a"), (two, "b")):
        log.add([_answer(key)])
        log.flush()
    assert set(_log(tmp_path).answers()) == {"a", "b"}


def test_two_different_answers_to_one_question_are_refused(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.add([_answer("a", "yes"), _answer("a", "no")])
    log.flush()
    with pytest.raises(StorageError, match="second, different answer"):
        _log(tmp_path).answers()


def test_an_answer_twice_unasked_or_never_raises() -> None:
    rows = (("1", "a"), ("2", "b"))
    asked = [Asked(setting="IND", task="PM", id=name, key=key, prompt_sha256="p") for name, key in rows]
    gather = Gather(["a", "b"])
    gather.add([_answer("b", "no idea")])
    with pytest.raises(ClusterError, match="twice"):
        gather.add([_answer("b")])
    with pytest.raises(ClusterError, match="not asked"):
        gather.add([_answer("z")])
    with pytest.raises(ClusterError, match="1 of 2 rows have no answer"):
        gather.predictions(asked)
    gather.add([_answer("a", "Yes")])
    found = gather.predictions(asked)
    assert [(one.id, one.parsed) for one in found] == [("1", "yes"), ("2", None)]
