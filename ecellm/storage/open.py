"""From a location to its storage."""

from __future__ import annotations

from ecellm.config.schema import Storage as Settings
from ecellm.storage.base import Storage, is_remote
from ecellm.storage.local import LocalStorage


def open_storage(root: str, settings: Settings | None = None) -> Storage:
    """The storage of a folder or of an `s3://bucket/prefix`. boto3 is imported for the latter only."""
    if not is_remote(root):
        return LocalStorage(root)
    from ecellm.storage.s3 import S3Storage

    return S3Storage(root, settings or Settings())


def split_location(location: str) -> tuple[str, str]:
    """(root, key) of one object's location: `s3://b/p/x.json` is (`s3://b/p`, `x.json`)."""
    root, _, key = location.rpartition("/")
    return (root or ".", key) if not location.startswith("/") or root else ("/", key)
