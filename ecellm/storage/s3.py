"""The storage protocol on S3, and the only place that knows boto3.

Credentials, endpoint and region come by the standard AWS settings. The client is the classic one: boto3's CRT client,
which is picked by itself on some GPU instances, ignores a custom endpoint. Retries are ours, for named codes only: a
403 or a 404 is an answer, and an expired token does not heal by trying again.
"""

from __future__ import annotations

import contextlib
import io
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

from ecellm.config.schema import Storage as Settings
from ecellm.errors import StorageError
from ecellm.storage.base import join

T = TypeVar("T")
RETRIED = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError", "ServiceUnavailable",
     "500", "502", "503", "504", "OperationAborted", "BadDigest", "IncompleteBody"}
)  # fmt: skip
"""Error codes that another try may heal."""
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_LOST = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict", "409"})


class S3Storage:
    """Objects of one bucket under one prefix. `root` is `s3://bucket/prefix`."""

    def __init__(self, root: str, settings: Settings) -> None:
        self.root = root.rstrip("/")
        self.bucket, _, self.prefix = self.root.removeprefix("s3://").partition("/")
        self._settings = settings
        # signed bodies and checksums stay on; one try each, because the tries are counted here
        config = Config(
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        self._client: Any = boto3.client("s3", config=config)
        part = settings.part_mib << 20
        self._transfer = TransferConfig(
            multipart_threshold=part, multipart_chunksize=part, max_concurrency=4, preferred_transfer_client="classic"
        )

    def _key(self, key: str) -> str:
        return join(self.prefix, key) if self.prefix else key

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object. A body that breaks off is asked for again from where it broke."""
        if length == 0:
            return b""
        data = io.BytesIO()

        def rest() -> bytes:
            first = start + data.tell()
            until = "" if length is None else str(start + length - 1)
            wanted = {} if first == 0 and length is None else {"Range": f"bytes={first}-{until}"}
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **wanted)["Body"]
            with contextlib.closing(body):
                for piece in body.iter_chunks(1 << 20):
                    data.write(piece)
            return data.getvalue()

        try:
            return self._try(key, rest)
        except StorageError as error:
            if "InvalidRange" in error.found:  # an empty rest: the range starts at the object's end
                return data.getvalue()
            raise

    def write(self, key: str, data: bytes) -> None:
        """Put an object."""
        self._try(key, lambda: self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data))

    def write_new(self, key: str, data: bytes) -> bool:
        """Put an object where there is none.

        A retried conditional put loses to its own first try when the reply was lost, so each put carries an owner
        as metadata, and a loser reads it back.
        """
        owner = uuid.uuid4().hex
        put = {"Bucket": self.bucket, "Key": self._key(key), "Body": data, "IfNoneMatch": "*"}
        try:
            self._try(key, lambda: self._client.put_object(**put, Metadata={"owner": owner}))
        except StorageError as error:
            if error.found.split(":")[0] not in _LOST:
                raise
            head = self._try(key, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(key)))
            return bool(head["Metadata"].get("owner") == owner)
        return True

    def upload(self, path: str, key: str) -> None:
        """Put a local file, in parts where it is large."""
        put = self._client.upload_file
        self._try(key, lambda: put(path, self.bucket, self._key(key), Config=self._transfer))

    def download(self, key: str, path: str) -> None:
        """Get an object into a local file, in ranges where it is large."""
        get = self._client.download_file
        self._try(key, lambda: get(self.bucket, self._key(key), path, Config=self._transfer))

    def size(self, key: str) -> int:
        """Bytes of an object."""
        head = self._try(key, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(key)))
        return int(head["ContentLength"])

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Keys with their sizes, page by page (a page holds at most 1,000)."""
        cut = len(self.prefix) + 1 if self.prefix else 0
        more: dict[str, str] = {}
        where = self._key(prefix) if prefix else (self.prefix + "/" if self.prefix else "")
        while True:
            page = self._try(
                prefix, lambda: self._client.list_objects_v2(Bucket=self.bucket, Prefix=where, **more)
            )
            for item in page.get("Contents", ()):
                yield item["Key"][cut:], int(item["Size"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._try(key, lambda: self._client.delete_object(Bucket=self.bucket, Key=self._key(key)))

    def _try(self, key: str, call: Callable[[], T]) -> T:
        """Run a call, again after a pause with jitter where another try may help."""
        url = join(self.root, key)
        for attempt in range(1, self._settings.attempts + 1):
            try:
                return call()
            except (ClientError, BotoCoreError, Boto3Error, ConnectionError) as error:
                code = _code(error)
                if code in _MISSING:
                    raise FileNotFoundError(2, "no such object", url) from error
                if attempt == self._settings.attempts or not _passing(error, code):
                    raise _told(url, error, code, attempt) from error
                time.sleep(random.uniform(0.5, 1.0) * min(8.0, 0.2 * 2**attempt))
        raise AssertionError("attempts is at least 1")


def _code(error: Exception) -> str:
    """The service's own code, also where the transfer manager wrapped it."""
    while error is not None:
        if isinstance(error, ClientError):
            return str(error.response.get("Error", {}).get("Code", "")) or str(
                error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
            )
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return ""


def _passing(error: Exception, code: str) -> bool:
    if code:
        return code in RETRIED
    return isinstance(error, HTTPClientError | ConnectionError | Boto3Error) or "IncompleteRead" in repr(error)


def _told(url: str, error: Exception, code: str, attempts: int) -> StorageError:
    mends = {
        "AccessDenied": "let this role read and write the prefix (see the IAM policy), or choose another `out`",
        "403": "let this role read and write the prefix, or choose another `out`",
        "ExpiredToken": "renew the credentials; long runs need a role that renews them by itself",
        "NoSuchBucket": "create the bucket, or correct `out`",
        "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY",
    }
    mend = mends.get(code, "check AWS_ENDPOINT_URL, the region and the network, then run again")
    if isinstance(error, NoCredentialsError):
        mend = "set AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the node a role"
    found = f"{code or type(error).__name__}: {error}"
    return StorageError(f"{url}: S3 failed after {attempts} tries", found=found, mend=mend)
