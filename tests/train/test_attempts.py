"""Attempts have numbers of their own, say how they ended, and keep dead ones from publishing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ecellm.checkpoint.save import LostRace
from ecellm.errors import StorageError
from ecellm.storage.base import Storage
from ecellm.storage.local import LocalStorage
from ecellm.storage.open import open_storage
from ecellm.train import attempts
from ecellm.train.attempts import Fence


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    root = str(tmp_path / "out") if request.param == "folder" else request.getfixturevalue("s3")
    return open_storage(root)


def test_numbers_grow_and_ends_are_told(storage: Storage) -> None:
    assert attempts.begin(storage, workers=2) == 1
    attempts.close(storage, 1, "stopped on request", step=40)
    attempts.close(storage, 1, "something else")
    assert attempts.begin(storage, workers=4) == 2
    assert attempts.begin(storage, workers=3) == 3
    first, second, third = attempts.history(storage)
    assert (first["workers"], first["reason"], first["step"]) == (2, "stopped on request", 40)
    assert second["reason"].startswith("no word of its end")
    assert second["by"] == 3
    assert "ended" not in third
    attempts.went_on(storage, 3, 40)
    assert attempts.begin(storage, reached=47) == 4
    third = attempts.history(storage)[2]
    assert (third["after"], third["step"], third["by"]) == (40, 47, 4)


def test_callers_at_the_same_time_get_different_numbers(tmp_path: Path) -> None:
    storage, taken = LocalStorage(str(tmp_path)), list[int]()
    threads = [threading.Thread(target=lambda: taken.append(attempts.begin(storage))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 9))


def test_a_rank_that_does_not_see_the_attempt_is_told(storage: Storage) -> None:
    waited: list[float] = []
    number = attempts.begin(storage)
    attempts.see(storage, number, waited.append)
    assert not waited
    with pytest.raises(StorageError, match=r"does not see .*attempt-00002\.json"):
        attempts.see(storage, 2, waited.append)
    assert len(waited) == 9


def test_an_old_attempt_may_not_publish(storage: Storage) -> None:
    old = Fence(storage, attempts.begin(storage))
    old()
    new = Fence(storage, attempts.begin(storage))
    new()
    with pytest.raises(LostRace, match="attempt 2 has taken over"):
        old()


def test_the_first_trouble_closes_its_attempt_and_leaves_its_traceback(storage: Storage) -> None:
    number = attempts.begin(storage)
    for rank, error in enumerate((MemoryError("CUDA out of memory.\nTried to allocate"), RuntimeError("peer closed"))):
        try:
            raise error
        except Exception as caught:
            attempts.failed(storage, number, caught, rank=rank, step=7)
    [said] = attempts.history(storage)
    assert (said["reason"], said["rank"], said["step"]) == ("MemoryError: CUDA out of memory.", 0, 7)
    [log] = [key for key, _ in storage.list("attempts") if key.endswith(".log")]
    assert b"Tried to allocate" in storage.read(log)
    assert b"raise error" in storage.read(log)


def test_an_end_that_cannot_be_told_hides_no_trouble(tmp_path: Path) -> None:
    class Full(LocalStorage):
        def write_new(self, key: str, data: bytes) -> bool:
            raise StorageError(f"{key}: no space")

    attempts.failed(Full(str(tmp_path)), 1, ZeroDivisionError())
    assert not list(tmp_path.iterdir())


def test_logs_lie_beside_their_attempt(storage: Storage) -> None:
    number = attempts.begin(storage)
    assert attempts.keep_log(storage, number, "trace").endswith("attempts/attempt-00001.log")
    assert storage.read("attempts/attempt-00001.log") == b"trace"
    assert attempts.keep_log(storage, number, "another").endswith("attempts/attempt-00001-2.log")
    assert storage.read("attempts/attempt-00001.log") == b"trace"
