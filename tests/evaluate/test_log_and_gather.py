"""The log keeps what was answered through a kill; the gather knows once from twice and never."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from ecellm.errors import ClusterError, StorageError
from ecellm.evaluate import log as log_module
from ecellm.evaluate.examples import END
from ecellm.evaluate.gather import Gather
from ecellm.evaluate.log import MOST_PARTS, Answer, LogWriter, read_log
from ecellm.evaluate.requests import Asked
from ecellm.storage.local import LocalStorage
from ecellm.tasks.template import opening

FOLDER = "answers/tuned"


def _answer(key: str, text: str = "yes") -> Answer:
    return Answer(key=key, text=text, tokens=1, finish_reason="stop")


def _log(folder: Path, writer: str = "", times: tuple[float, ...] = ()) -> LogWriter:
    clock = iter(times)
    return LogWriter(LocalStorage(str(folder)), FOLDER, writer, clock=lambda: next(clock, 0.0))


def _read(folder: Path, writer: str = "") -> dict[str, Answer]:
    return read_log(LocalStorage(str(folder)), FOLDER, writer)


def test_what_was_flushed_is_there_again(tmp_path: Path) -> None:
    log = _log(tmp_path)
    assert log.add([_answer("a"), _answer("b", "no\nline")]) == []
    assert _read(tmp_path) == {}  # not flushed: a kill here loses it, and nobody was told of it
    assert [one.key for one in log.flush()] == ["a", "b"]
    log.add([_answer("c")])
    log.flush()
    assert {key: one.text for key, one in _read(tmp_path).items()} == {"a": "yes", "b": "no\nline", "c": "yes"}


def test_answers_are_told_of_only_when_they_are_on_storage(tmp_path: Path) -> None:
    log = _log(tmp_path, times=(0.0, 0.0, 0.5, 2.0, 2.0))
    assert log.add([_answer("a")]) == []
    assert [one.key for one in log.add([_answer("b")])] == ["a", "b"]
    assert set(_read(tmp_path)) == {"a", "b"}
    assert log.flush() == []


def test_what_is_due_is_written_though_no_more_answers_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "FLUSH_SECONDS", 0.02)
    log = _log(tmp_path)
    assert log.add([_answer("a")]) == []
    until = time.monotonic() + 20
    while not _read(tmp_path) and time.monotonic() < until:
        time.sleep(0.01)
    assert set(_read(tmp_path)) == {"a"}
    assert [one.key for one in log.add([_answer("b")])] == ["a"]
    assert [one.key for one in log.flush()] == ["b"]


def test_what_could_not_be_written_is_kept_for_the_next_try(tmp_path: Path) -> None:
    class Full(LocalStorage):
        full = True

        def write(self, key: str, data: bytes) -> None:
            if self.full:
                raise StorageError("the disk is full")
            super().write(key, data)

    storage = Full(str(tmp_path))
    log = LogWriter(storage, FOLDER)
    log.add([_answer("a")])
    with pytest.raises(StorageError, match="full"):
        log.flush()
    storage.full = False
    assert [one.key for one in log.flush()] == ["a"]
    assert set(_read(tmp_path)) == {"a"}


def test_shares_and_bills_come_back(tmp_path: Path) -> None:
    log = _log(tmp_path)
    one = Answer(
        key="a", text="yes", tokens=0, finish_reason="choice", shares={"yes": 0.75, "no": 0.25}, bill={"attempts": 2.0}
    )
    log.add([one])
    log.flush()
    assert _read(tmp_path)["a"] == one


def test_a_writers_own_answers_can_be_asked_for(tmp_path: Path) -> None:
    for writer, key in (("one-", "a"), ("two-", "b")):
        log = _log(tmp_path, writer)
        log.add([_answer(key)])
        log.flush()
    assert set(_read(tmp_path, "one-")) == {"a"}
    assert set(_read(tmp_path)) == {"a", "b"}


def test_a_log_of_many_parts_becomes_one_and_loses_nothing(tmp_path: Path) -> None:
    log = _log(tmp_path)
    for n in range(MOST_PARTS + 1):
        log.add([_answer(f"{n}")])
        log.flush()
    before = _read(tmp_path)
    assert len(list((tmp_path / FOLDER).glob("part-*"))) == 1
    assert _read(tmp_path) == before
    assert len(before) == MOST_PARTS + 1


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.add([_answer("a"), _answer("b")])
    log.flush()
    part = next((tmp_path / FOLDER).glob("part-*.jsonl"))
    part.write_bytes(part.read_bytes()[:-9])
    assert set(_read(tmp_path)) == {"a"}


def test_a_broken_line_inside_is_named(tmp_path: Path) -> None:
    log = _log(tmp_path, "w-")
    log.add([_answer("a"), _answer("b")])
    log.flush()
    part = next((tmp_path / FOLDER).glob("part-*.jsonl"))
    part.write_bytes(b"{nonsense\n" + part.read_bytes())
    with pytest.raises(StorageError, match=r"part-w--000001.jsonl:1.*\n.*nonsense"):
        _read(tmp_path)


def test_of_two_answers_to_one_question_the_first_part_by_name_holds_before_and_after_parts_become_one(
    tmp_path: Path,
) -> None:
    for writer, text in (("two-", "no"), ("one-", "yes")):
        log = _log(tmp_path, writer)
        log.add([_answer("a", text)])
        log.flush()
    assert _read(tmp_path)["a"].text == "yes"
    log = _log(tmp_path, "more-")
    for n in range(MOST_PARTS):
        log.add([_answer(f"{n}")])
        log.flush()
    assert _read(tmp_path)["a"].text == _read(tmp_path)["a"].text == "yes"


def test_a_log_that_another_run_makes_one_part_of_is_read_again(tmp_path: Path) -> None:
    for writer in ("one-", "two-"):
        log = _log(tmp_path, writer)
        log.add([_answer(writer)])
        log.flush()

    class Meddled(LocalStorage):
        reads = 0

        def read(self, key: str) -> bytes:
            self.reads += 1
            if self.reads == 2:  # the other run: both answers in a new part, the old ones gone
                whole = b"".join(path.read_bytes() for path in sorted((tmp_path / FOLDER).glob("part-*")))
                for path in (tmp_path / FOLDER).glob("part-*"):
                    path.unlink()
                (tmp_path / FOLDER / "part-all-000000.jsonl").write_bytes(whole)
            return super().read(key)

    storage = Meddled(str(tmp_path))
    assert set(read_log(storage, FOLDER)) == {"one-", "two-"}
    assert storage.reads == 3


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


def test_an_answer_after_worked_examples_ends_where_theirs_do() -> None:
    end = END + opening("alpaca")
    for text, wanted in (
        (f"yes{end} another", "yes"),
        ("yes\n\nBelow is an instru", "yes"),  # there was no room for more of it
        ("yes\n\nBecause both are the same", "yes\n\nBecause both are the same"),  # that is not how examples go on
        ('[\n\n{"a": 1}\n\n]', '[\n\n{"a": 1}\n\n]'),
    ):
        gather = Gather(["a"])
        gather.add([Answer(key="a", text=text, tokens=1, finish_reason="length")])
        one = Asked(setting="IND", task="PM", id="1", key="a", prompt_sha256="p")
        assert gather.predictions([one])[0].text == text
        [found] = gather.predictions([replace(one, end=end)])
        assert found.text == wanted
        assert found.finish_reason == ("length" if wanted == text else "stop")
