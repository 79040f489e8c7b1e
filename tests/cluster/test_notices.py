"""Notices read from a metadata service that really answers on loopback, and what the watch does with them."""

from __future__ import annotations

import datetime
import subprocess
import time

import pytest

from ecellm.cluster.notices import Aws, Gcp, NoService, Notice, service
from ecellm.cluster.watch import drainer, watch
from tests.cluster.conftest import Metadata

ACTION = "/latest/meta-data/spot/instance-action"


def test_aws_asks_for_a_token_first_and_keeps_it(metadata: Metadata) -> None:
    aws = Aws()
    assert aws.notice() is None
    assert aws.notice() is None
    assert [method for method, *_ in metadata.asked] == ["PUT", "GET", "GET"]
    assert metadata.asked[0][2] == "21600"
    assert metadata.asked[1] == ("GET", ACTION, "a-token")


def test_aws_tells_the_seconds_that_are_left(metadata: Metadata) -> None:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    metadata.items[ACTION] = f'{{"action": "terminate", "time": "{at:%Y-%m-%dT%H:%M:%SZ}"}}'
    notice = Aws().notice()
    assert notice is not None
    assert notice.reason == "spot terminate"
    assert 97 <= notice.seconds <= 100


def test_a_notice_that_cannot_be_read_is_a_notice(metadata: Metadata) -> None:
    metadata.items[ACTION] = "soon"
    assert Aws().notice() == Notice("spot", 120)


def test_a_token_that_is_refused_is_fetched_anew(metadata: Metadata) -> None:
    aws = Aws()
    aws.notice()
    metadata.token = "another"
    with pytest.raises(NoService, match="401"):
        aws.notice()
    assert aws.notice() is None


def test_gcp(metadata: Metadata) -> None:
    assert Gcp().notice() is None
    metadata.items["/computeMetadata/v1/instance/preempted"] = "FALSE"
    assert Gcp().notice() is None
    metadata.items["/computeMetadata/v1/instance/maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    assert Gcp().notice() == Notice("host maintenance", 60)
    metadata.items["/computeMetadata/v1/instance/preempted"] = "TRUE"
    assert Gcp().notice() == Notice("preempted", 30)


def test_a_machine_of_no_cloud_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    with pytest.raises(NoService):
        service("auto")


def test_auto_takes_the_cloud_that_answers(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    assert isinstance(service("auto"), Gcp)


class Scripted:
    """Answers in order: a notice, nothing, or no service."""

    def __init__(self, *answers: Notice | NoService | None) -> None:
        self.answers = list(answers)

    def notice(self) -> Notice | None:
        answer = self.answers.pop(0)
        if isinstance(answer, NoService):
            raise answer
        return answer


def test_a_second_try_at_draining_has_less_time() -> None:
    times = iter([100.0, 100.0, 130.0])
    asked: list[int] = []

    def drain(notice: Notice) -> bool:
        asked.append(notice.seconds)
        return len(asked) == 2

    watch(Scripted(Notice("spot", 120)), drain, sleep=lambda seconds: None, clock=lambda: next(times))
    assert asked == [120, 90]


def test_a_head_that_hangs_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(words: object, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(str(words), timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    said: list[str] = []
    assert not drainer("127.0.0.1:1", "node", said.append)(Notice("spot", 120))
    assert said == ["not drained yet: no answer for 20 s"]


def test_the_watch_asks_on_and_drains_until_it_is_heard() -> None:
    slept: list[float] = []
    said: list[str] = []
    answers = iter([False, False, True])
    silent = [NoService("down")] * 3
    notice = watch(
        Scripted(None, *silent, None, Notice("spot", 90)), lambda _: next(answers), period=5.0, sleep=slept.append,
        say=said.append,
    )  # fmt: skip
    assert notice == Notice("spot", 90)
    assert slept == [5.0] * 5 + [1.0] * 2
    assert "3 times" in said[0]
    assert said[-1] == "drained"


def test_an_aws_notice_is_counted_down(metadata: Metadata) -> None:
    metadata.items[ACTION] = '{"action": "stop", "time": "2099-01-01T00:00:00Z"}'
    assert Aws(now=lambda: time.mktime((2098, 12, 31, 0, 0, 0, 0, 0, 0))).notice() is not None
