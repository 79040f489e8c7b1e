"""The storage protocol on S3: the only module that imports boto3.

Credentials, region and endpoint come from the standard AWS settings (`AWS_ENDPOINT_URL_S3`, `AWS_PROFILE`, a role …).
Single calls use our own retries; whole files go through boto3's classic transfer, never its CRT form, which ignores a
configured endpoint. Only a whole object that was sent in one piece comes with a checksum: callers hold digests in their
manifests.
"""

from __future__ import annotations

import errno
import io
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)  # fmt: skip
from botocore.exceptions import ConnectionError as HttpConnectionError

from ecellm.config.schema import Storage as Settings
from ecellm.errors import StorageError
from ecellm.storage.base import split
from ecellm.storage.codes import ABSENT, CHANGED, DENIED, SWEPT, TAKEN, code_of, expired, first_line, mend_of
from ecellm.storage.retry import PASSING, Retry
from ecellm.storage.streams import Unclosed

OWNER = "ecellm-owner"
"""Metadata key that holds who wrote an object in `write_new`."""
BROKEN_BODY = (IncompleteReadError, ResponseStreamingError, HttpConnectionError, HTTPClientError)


class S3Storage:
    """Objects are keys under the root's prefix.

    Args:
        root: `s3://bucket` or `s3://bucket/prefix`.
        settings: tries, time-outs and part size.
        sleep: how to pause between tries, in seconds; tests pass a fake.
        page: most keys that one listing asks for.
    """

    def __init__(
        self, root: str, settings: Settings, *, sleep: Callable[[float], None] = time.sleep, page: int = 1000
    ) -> None:
        self._page = page
        self.root = root.rstrip("/")
        self.bucket, self._prefix = split(self.root)
        self._retry = Retry(settings.attempts, sleep=sleep)
        with self._told("open", self.root):
            self._client = _client(settings, attempts=1)
            self._mover = _client(settings, attempts=settings.attempts)
        part = settings.part_mib << 20
        self._transfer = TransferConfig(
            multipart_threshold=part, multipart_chunksize=part, max_concurrency=8, preferred_transfer_client="classic"
        )

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        with self._told("read", self._url(key)), self._absence_told(key):
            return self._read(self._key(key), start, length)

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        # boto3 never tries a broken body again, so it is reopened where it broke, as long as it is the same object.
        got, failures = bytearray(), 0
        same: dict[str, str] = {}
        while True:
            end = "" if length is None else str(start + length - 1)
            at = {"Range": f"bytes={start + len(got)}-{end}"} if start or got or end else {}
            try:
                reply = self._call("get_object", Key=key, **at, **same)
                same = {"IfMatch": reply["ETag"]}
                expected = len(got) + int(reply["ContentLength"])
                for piece in reply["Body"].iter_chunks(1 << 20):
                    got += piece
                if len(got) >= expected:
                    return bytes(got)
                raise IncompleteReadError(actual_bytes=len(got), expected_bytes=expected)
            except ClientError as trouble:
                if code_of(trouble) in ("InvalidRange", "416"):
                    return bytes(got)
                if code_of(trouble) not in TAKEN or failures >= self._retry.attempts:
                    raise
                got, same = bytearray(), {}  # replaced while we read: begin again
                failures += 1
            except (*BROKEN_BODY, FlexibleChecksumError) as trouble:
                failures += 1
                if failures >= self._retry.attempts:
                    raise
                if isinstance(trouble, FlexibleChecksumError):
                    got = bytearray()  # nobody knows which byte of them changed: begin again
                self._retry.pause(failures)

    def write(self, key: str, data: bytes) -> None:
        with self._told("write", self._url(key)):
            self._call("put_object", Key=self._key(key), Body=data)

    def write_new(self, key: str, data: bytes) -> bool:
        owner = uuid.uuid4().hex
        with self._told("write", self._url(key)):
            try:
                self._call("put_object", Key=self._key(key), Body=data, IfNoneMatch="*", Metadata={OWNER: owner})
                return True
            except ClientError as trouble:
                if code_of(trouble) not in TAKEN:
                    raise
            # A put that won but whose reply was lost is refused when tried again: whose object is it?
            there = self._call("head_object", Key=self._key(key))
            return bool(there.get("Metadata", {}).get(OWNER) == owner)

    def upload(self, path: str, key: str) -> None:
        def move() -> None:
            self._mover.upload_file(path, self.bucket, self._key(key), Config=self._transfer)

        with self._told("write", self._url(key)):
            self._retry.once_more(move, expired)
            self._check_size(key, os.path.getsize(path))

    def upload_stream(self, stream: BinaryIO | io.RawIOBase, key: str) -> None:
        def move() -> None:
            stream.seek(0)
            # boto3 closes what it has sent; a second try needs it open
            self._mover.upload_fileobj(Unclosed(stream), self.bucket, self._key(key), Config=self._transfer)

        with self._told("write", self._url(key)):
            self._retry.once_more(move, expired)
            self._check_size(key, stream.seek(0, io.SEEK_END))

    def _check_size(self, key: str, here: int) -> None:
        stored = self._call("head_object", Key=self._key(key))["ContentLength"]
        if stored != here:
            raise StorageError(
                f"{self._url(key)}: {stored} bytes stored", expected=f"{here} bytes", mend="upload again"
            )

    def sweep(self, prefix: str) -> int:
        """Abort multipart uploads that nobody finished: each lost reply to a creation leaves one, and it costs."""
        under, count, more = self._key(prefix) + "/", 0, dict[str, str]()
        with self._told("list", self._url(prefix)):
            while True:
                page = self._call("list_multipart_uploads", Prefix=under, **more)
                for upload in page.get("Uploads", ()):
                    self._abort(upload["Key"], upload["UploadId"])
                    count += 1
                marks = ("KeyMarker", "UploadIdMarker")
                more = {mark: page[f"Next{mark}"] for mark in marks if page.get(f"Next{mark}")}
                if not page.get("IsTruncated") or not more:
                    return count

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._call("abort_multipart_upload", Key=key, UploadId=upload)
        except ClientError as trouble:
            if code_of(trouble) not in SWEPT:  # somebody else was faster, or the reply to an earlier try was lost
                raise

    def download(self, key: str, path: str) -> None:
        def move() -> None:
            self._mover.download_file(self.bucket, self._key(key), path, Config=self._transfer)

        with self._told("read", self._url(key)), self._absence_told(key):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            self._retry(
                lambda: self._retry.once_more(move, expired), lambda error: isinstance(error, FlexibleChecksumError)
            )

    def size(self, key: str) -> int:
        with self._told("read", self._url(key)), self._absence_told(key):
            return int(self._call("head_object", Key=self._key(key))["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        under = self._key(prefix) + "/" if prefix.strip("/") else self._prefix
        more: dict[str, str] = {}
        while True:
            with self._told("list", f"s3://{self.bucket}/{under}"):
                page = self._call("list_objects_v2", Prefix=under, MaxKeys=self._page, **more)
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # some consoles write empty objects to show folders
                    yield entry["Key"][len(self._prefix) :], int(entry["Size"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        with self._told("delete", self._url(key)):
            self._call("delete_object", Key=self._key(key))

    def _call(self, name: str, **words: Any) -> Any:
        def call() -> Any:
            return getattr(self._client, name)(Bucket=self.bucket, **words)

        return self._retry(lambda: self._retry.once_more(call, expired), _passes)

    def _key(self, key: str) -> str:
        parts = [part for part in key.split("/") if part]
        if not parts or any(part in (".", "..") for part in parts):
            raise StorageError(f"{key!r} is no key under {self.root}", expected="a relative key without '..'")
        return self._prefix + "/".join(parts)

    def _url(self, key: str) -> str:
        return f"{self.root}/{key.strip('/')}"

    @contextmanager
    def _absence_told(self, key: str) -> Iterator[None]:
        """An identity that may list a prefix only hears 403 of what is absent, not 404: a listing tells them apart."""
        try:
            yield
        except ClientError as trouble:
            if code_of(trouble) not in DENIED or self._listed(key):
                raise
            raise FileNotFoundError(errno.ENOENT, "no such object", self._url(key)) from trouble

    def _listed(self, key: str) -> bool:
        """Whether there is such an object, or nobody tells."""
        try:
            page = self._call("list_objects_v2", Prefix=self._key(key), MaxKeys=1)
        except ClientError:
            return True
        return any(entry["Key"] == self._key(key) for entry in page.get("Contents", ()))

    @contextmanager
    def _told(self, doing: str, url: str) -> Iterator[None]:
        """Turn S3 troubles into FileNotFoundError with the full URL, or StorageError with the mend."""
        try:
            yield
        except ClientError as trouble:
            code = code_of(trouble)
            if code in ABSENT:
                raise FileNotFoundError(errno.ENOENT, "no such object", url) from trouble
            raise StorageError(f"{url}: cannot {doing}", found=first_line(trouble), mend=mend_of(code)) from trouble
        except (NoCredentialsError, PartialCredentialsError) as trouble:
            mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
            raise StorageError(f"{url}: cannot {doing}", found=first_line(trouble), mend=mend) from trouble
        except BROKEN_BODY as trouble:
            mend = "check the network and AWS_ENDPOINT_URL_S3, then run the same command again"
            raise StorageError(f"{url}: S3 does not answer", found=first_line(trouble), mend=mend) from trouble
        except FlexibleChecksumError as trouble:
            said = f"{url}: cannot {doing}, its bytes are not those that were stored"
            raise StorageError(said, found=first_line(trouble), mend=CHANGED) from trouble
        except (BotoCoreError, Boto3Error) as trouble:
            inner = re.search(r"\((\w+)\) when calling", str(trouble))
            mend = mend_of(inner.group(1) if inner else "")
            raise StorageError(f"{url}: cannot {doing}", found=first_line(trouble), mend=mend) from trouble
        except FileNotFoundError:
            raise
        except OSError as trouble:
            mend = "free some space on the local disk" if trouble.errno == errno.ENOSPC else "check the local disk"
            raise StorageError(f"{url}: cannot {doing}", found=str(trouble), mend=mend) from trouble


def _client(settings: Settings, attempts: int) -> Any:
    session = botocore.session.get_session()
    s3 = dict(session.get_scoped_config().get("s3") or {})
    if "addressing_style" not in s3 and _own_endpoint(session):
        s3["addressing_style"] = "path"  # servers of one's own seldom have a name for each bucket
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3=s3,
        max_pool_connections=16,
    )
    return boto3.Session(botocore_session=session).client("s3", config=config)


def _own_endpoint(session: Any) -> bool:
    set_in_file = session.get_scoped_config().get("endpoint_url") or session.get_scoped_config().get("services")
    return bool(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or set_in_file)


def _passes(trouble: Exception) -> bool:
    if isinstance(trouble, ClientError):
        return code_of(trouble) in PASSING
    return isinstance(trouble, HttpConnectionError | HTTPClientError | IncompleteReadError)
