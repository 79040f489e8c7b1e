"""S3 through a proxy that breaks things: what is tried again, what is not, and what a person is told."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecellm.config.schema import Storage as Settings
from ecellm.errors import StorageError
from ecellm.storage.base import split
from ecellm.storage.s3 import S3Storage
from tests.storage.faults import Fault, Proxy


@pytest.fixture
def proxy(s3: str, s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", made.url)
    yield made
    made.close()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def storage(s3: str, proxy: Proxy, pauses: list[float]) -> S3Storage:
    return S3Storage(s3, Settings(attempts=4, connect_timeout_s=2, read_timeout_s=5, part_mib=5), sleep=pauses.append)


def test_throttling_is_waited_out(storage: S3Storage, proxy: Proxy, pauses: list[float]) -> None:
    proxy.faults = [Fault("refuse", "Put", times=2), Fault("reset", "Get", times=2)]
    storage.write("k", b"v")
    assert storage.read("k") == b"v"
    assert len(pauses) == 4
    assert all(0 <= pause <= 0.4 for pause in pauses)


def test_throttling_for_ever_ends(storage: S3Storage, proxy: Proxy) -> None:
    proxy.faults = [Fault("refuse", "Put", times=99)]
    with pytest.raises(StorageError, match="SlowDown") as caught:
        storage.write("k", b"v")
    assert proxy.count("Put") == 4
    assert "storage.attempts" in caught.value.mend


def test_a_refusal_is_an_answer(storage: S3Storage, proxy: Proxy) -> None:
    storage.write("k", b"x")
    proxy.faults = [Fault("refuse", "Get", status=403, code="AccessDenied", times=99)]
    with pytest.raises(StorageError, match="AccessDenied") as caught:
        storage.read("k")
    assert proxy.count("Get") == 1
    assert "s3:GetObject" in caught.value.mend


def test_a_refusal_of_what_is_not_listed_is_an_absence(storage: S3Storage, proxy: Proxy) -> None:
    """S3 answers 403 for a missing key to who may not list the whole bucket."""
    storage.write("there", b"x")
    for operation in ("Head", "Get"):
        proxy.faults = [Fault("refuse", operation, times=9, status=403, code="AccessDenied")]
        with pytest.raises(FileNotFoundError, match="no such object"):
            storage.read("absent") if operation == "Get" else storage.size("absent")
        with pytest.raises(StorageError, match="cannot read") as caught:
            storage.read("there") if operation == "Get" else storage.size("there")
        assert "ListBucket" in caught.value.mend
    proxy.faults = [Fault("refuse", "Head", times=9, status=403, code="AccessDenied")]
    assert not storage.exists("absent")
    proxy.faults.append(Fault("refuse", "List", times=9, status=403, code="AccessDenied"))
    with pytest.raises(StorageError):
        storage.exists("absent")


def test_an_absence_is_an_answer(storage: S3Storage, proxy: Proxy) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")
    assert proxy.count("Get") == 1


@pytest.mark.parametrize(("start", "length"), [(0, None), (1000, None), (1000, 150_000)])
def test_a_broken_body_goes_on_where_it_broke(storage: S3Storage, proxy: Proxy, start: int, length: int | None) -> None:
    data = os.urandom(200_000)
    storage.write("k", data)
    proxy.faults = [Fault("cut_reply", "Get", times=2, after=60_000)]
    assert storage.read("k", start, length) == data[start : None if length is None else start + length]
    assert proxy.count("Get") == 3


def test_a_body_that_always_breaks_ends(storage: S3Storage, proxy: Proxy) -> None:
    storage.write("k", b"x" * 1000)
    proxy.faults = [Fault("cut_reply", "Get", times=99, after=10)]
    with pytest.raises(StorageError, match="does not answer"):
        storage.read("k")
    assert proxy.count("Get") == 4


def test_a_won_lock_whose_reply_was_lost_is_won(storage: S3Storage, proxy: Proxy) -> None:
    proxy.faults = [Fault("lose_reply", "Put")]
    assert storage.write_new("lock", b"same bytes")
    assert proxy.count("Put") == 2
    assert not storage.write_new("lock", b"same bytes")


def test_a_part_that_fails_is_sent_again(storage: S3Storage, proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(11 << 20))
    proxy.faults = [Fault("refuse", "Part", status=500, code="InternalError"), Fault("lose_reply", "Complete")]
    storage.upload(str(tmp_path / "f"), "big")
    proxy.faults = [Fault("cut_reply", "Get", after=100_000)]
    storage.download("big", str(tmp_path / "g"))
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()
    assert proxy.count("Part") == 4


def test_a_token_that_expires_once_is_survived(storage: S3Storage, proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    proxy.faults = [Fault("refuse", "Put", status=400, code="ExpiredToken")]
    storage.upload(str(tmp_path / "f"), "k")
    assert storage.read("k") == b"x" * 100


def test_a_token_that_expires_once_costs_no_single_call(storage: S3Storage, proxy: Proxy) -> None:
    def once(operation: str) -> None:
        proxy.faults = [Fault("refuse", operation, status=400, code="ExpiredToken")]

    once("Put")
    storage.write("k", b"x")
    once("Put")
    assert storage.write_new("lock", b"y")
    once("Get")
    assert storage.read("k") == b"x"
    once("Head")  # whose refusal has no body, and so no code: botocore asks for the bucket's region, by HEAD too
    proxy.faults[0].times = 2
    assert storage.size("k") == 1
    once("List")
    assert list(storage.list()) == [("k", 1), ("lock", 1)]
    once("Delete")
    storage.delete("k")
    assert not storage.exists("k")


def test_a_token_that_stays_expired_is_told(storage: S3Storage, proxy: Proxy, pauses: list[float]) -> None:
    proxy.faults = [Fault("refuse", "Get", status=400, code="ExpiredToken", times=99)]
    with pytest.raises(StorageError, match="ExpiredToken") as caught:
        storage.read("k")
    assert proxy.count("Get") == 2
    assert not pauses
    assert "renew the credentials" in caught.value.mend


@pytest.mark.parametrize("after", [0, 199_999])
def test_a_changed_byte_of_a_whole_object_is_read_again(
    storage: S3Storage, proxy: Proxy, tmp_path: Path, after: int
) -> None:
    data = os.urandom(200_000)
    storage.write("k", data)
    proxy.faults = [Fault("corrupt", "Get", times=2, after=after)]
    assert storage.read("k") == data
    assert proxy.count("Get") == 3
    proxy.faults = [Fault("corrupt", "Get", times=2, after=after)]
    storage.download("k", str(tmp_path / "k"))
    assert (tmp_path / "k").read_bytes() == data


def test_bytes_that_always_change_are_told_as_that(storage: S3Storage, proxy: Proxy, tmp_path: Path) -> None:
    storage.write("k", b"x" * 1000)
    for call in (lambda: storage.read("k"), lambda: storage.download("k", str(tmp_path / "k"))):
        proxy.seen.clear()
        proxy.faults = [Fault("corrupt", "Get", times=99)]
        with pytest.raises(StorageError, match="not those that were stored") as caught:
            call()
        assert proxy.count("Get") == 4
        assert "check the network" in caught.value.mend
    assert not (tmp_path / "k").exists()


def test_files_go_by_the_classic_client_on_machines_that_boto3_prefers_another_on(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from boto3.s3 import transfer

    fast = SimpleNamespace(s3=SimpleNamespace(is_optimized_for_system=lambda: True), __version__="9")
    monkeypatch.setattr(transfer, "HAS_CRT", True)
    monkeypatch.setattr(transfer, "awscrt", fast, raising=False)
    monkeypatch.setattr(transfer, "has_minimum_crt_version", lambda version: True)
    assert transfer._should_use_crt(transfer.TransferConfig())  # its own default would be the other
    assert not transfer._should_use_crt(storage._transfer)


def test_lists_every_page(s3: str, proxy: Proxy) -> None:
    storage = S3Storage(s3, Settings(), page=3)
    for number in range(8):
        storage.write(f"p/{number}", b"")
    assert [key for key, _ in storage.list("p")] == [f"p/{number}" for number in range(8)]
    assert proxy.count("List") == 3


def test_no_server_is_told_with_its_mend(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    storage = S3Storage(s3, Settings(attempts=2), sleep=lambda seconds: None)
    with pytest.raises(StorageError, match="does not answer") as caught:
        storage.exists("k")
    assert "AWS_ENDPOINT_URL_S3" in caught.value.mend


def test_no_credentials_is_told_with_its_mend(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="credentials") as caught:
        S3Storage(s3, Settings()).write("k", b"")
    assert "AWS_PROFILE" in caught.value.mend


def test_no_bucket_is_told_with_its_mend(aws: str) -> None:
    with pytest.raises(StorageError, match="NoSuchBucket") as caught:
        S3Storage("s3://no-such-bucket-here/x", Settings()).write("k", b"")
    assert "create the bucket" in caught.value.mend


def test_split() -> None:
    assert split("s3://bucket") == ("bucket", "")
    assert split("s3://bucket/a/b") == ("bucket", "a/b/")
    with pytest.raises(StorageError, match="no bucket name"):
        split("s3://Bucket_/x")


def test_a_stream_is_sent_again_where_it_broke(storage: S3Storage, proxy: Proxy) -> None:
    data = os.urandom(12 << 20)
    proxy.faults = [Fault("refuse", "Part", times=2), Fault("lose_reply", "Part"), Fault("lose_reply", "Complete")]
    storage.upload_stream(io.BytesIO(data), "k")
    assert storage.read("k") == data


def test_uploads_that_nobody_finished_are_swept(storage: S3Storage, proxy: Proxy) -> None:
    proxy.faults = [Fault("lose_reply", "Create", times=2)]
    storage.upload_stream(io.BytesIO(os.urandom(12 << 20)), "checkpoints/k")
    client, place = storage._client, {"Bucket": storage.bucket}
    assert len(client.list_multipart_uploads(**place)["Uploads"]) == 2
    assert storage.sweep("elsewhere") == 0
    assert storage.sweep("checkpoints") == 2
    assert not client.list_multipart_uploads(**place).get("Uploads")
    assert storage.size("checkpoints/k") == 12 << 20


def test_an_upload_that_is_gone_by_the_time_it_is_swept_is_no_trouble(storage: S3Storage, proxy: Proxy) -> None:
    proxy.faults = [Fault("lose_reply", "Create", times=2), Fault("lose_reply", "Abort")]
    storage.upload_stream(io.BytesIO(os.urandom(12 << 20)), "checkpoints/k")
    assert storage.sweep("checkpoints") == 2
    assert proxy.count("Abort") == 3
    assert not storage._client.list_multipart_uploads(Bucket=storage.bucket).get("Uploads")
    proxy.faults = [Fault("lose_reply", "Create"), Fault("refuse", "Abort", status=403, code="AccessDenied")]
    storage.upload_stream(io.BytesIO(os.urandom(12 << 20)), "checkpoints/k")
    with pytest.raises(StorageError, match="AccessDenied"):
        storage.sweep("checkpoints")
