"""What a checkpoint's marker names: its manifest, compared with the digest that the marker gives.

The one decision: bytes that came otherwise than they were written are read again before they count as changed, marker
and manifest no less than weights. Networks change bytes, and a marker that was misread once would cost a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ecellm.checkpoint.layout import COMPLETE, inside
from ecellm.errors import CheckpointError
from ecellm.storage.base import Storage

READS = 3
"""Times that something is read before its bytes count as changed."""


class Broken(CheckpointError):
    """A checkpoint that is not what was written: an older one will do."""


def published(storage: Storage, folder: str) -> tuple[Mapping[str, Any], bytes]:
    """What a checkpoint's marker says, and the manifest that it names.

    Raises:
        Broken: no marker, or a manifest that is missing or another one, at each of `READS` readings.
        StorageError: storage cannot be read.
    """
    reads = 1
    while True:
        try:
            return _read(storage, folder)
        except Broken:
            if reads == READS:
                raise
            reads += 1


def _read(storage: Storage, folder: str) -> tuple[Mapping[str, Any], bytes]:
    try:
        marker = json.loads(storage.read(inside(folder, COMPLETE)))
        name, wanted = str(marker["manifest"]), marker["manifest_sha256"]
        data = storage.read(inside(folder, name))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise Broken(
            f"{storage.root}/{folder} is no whole checkpoint", found=str(error),
            expected=f"{COMPLETE} and the manifest that it names",
            mend="name another step; `ecellm checkpoints list` shows them",
        ) from error  # fmt: skip
    if hashlib.sha256(data).hexdigest() != wanted:
        raise Broken(f"{folder}/{name} is not the one its marker names", mend="remove this checkpoint")
    return marker, data
