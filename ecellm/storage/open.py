"""A location's string to its storage. boto3 loads only for s3:// locations."""

from __future__ import annotations

import os

from ecellm.config.schema import Storage as Settings
from ecellm.errors import StorageError
from ecellm.storage.base import Storage, is_remote


def open_storage(root: str, settings: Settings | None = None) -> Storage:
    """The storage of a folder (need not exist yet) or an s3:// prefix. Nothing is read or written here.

    Raises:
        StorageError: neither a folder nor an s3:// prefix with a bucket, or the S3 client cannot be made.
    """
    if is_remote(root):
        from ecellm.storage.s3 import S3Storage

        return S3Storage(root, settings or Settings())
    if "://" in root:
        raise StorageError(f"{root}: unknown kind of location", expected="a folder or s3://bucket/prefix")
    if os.path.exists(root) and not os.path.isdir(root):
        raise StorageError(f"{root}: a file", expected="a folder or s3://bucket/prefix", mend="give another location")
    from ecellm.storage.local import LocalStorage

    return LocalStorage(root)
