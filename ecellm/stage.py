"""When a stage's artefact is done: a marker written last, with a fingerprint of what it was made from.

Not a scheduler: stages decide themselves, with `is_complete`, whether to skip. A marker of another fingerprint, or
one that cannot be read, counts as no marker, so half-written or outdated work is redone and never trusted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from pydantic import BaseModel

from ecellm.storage.base import Storage

MARKER = "COMPLETE"


def fingerprint(*parts: object) -> str:
    """sha256 in hex of the parts' canonical JSON. Pydantic models, dataclasses, sets and tuples are allowed.

    Raises:
        TypeError: a part has no canonical form.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"no canonical form for {type(value).__name__} in a fingerprint")


def marker(storage: Storage, folder: str) -> dict[str, Any] | None:
    """What the folder's marker says, or None where there is none that can be read."""
    try:
        said = json.loads(storage.read(_key(folder)))
    except (FileNotFoundError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def is_complete(storage: Storage, folder: str, fingerprint: str) -> bool:
    """Whether the folder was finished from exactly these inputs."""
    said = marker(storage, folder)
    return said is not None and said.get("fingerprint") == fingerprint


def publish(storage: Storage, folder: str, fingerprint: str, **facts: object) -> None:
    """Write the folder's marker: fingerprint and facts. Call it after everything else of the folder is in place.

    Raises:
        StorageError: the marker cannot be written.
    """
    said = {**facts, "fingerprint": fingerprint}
    storage.write(_key(folder), (json.dumps(said, indent=1, sort_keys=True, default=_plain) + "\n").encode())


def clear(storage: Storage, folder: str) -> None:
    """Remove an artefact, marker first, so that no reader trusts what is being removed."""
    storage.delete(_key(folder))
    for key, _ in list(storage.list(folder)):
        storage.delete(key)


def _key(folder: str) -> str:
    return f"{folder.strip('/')}/{MARKER}" if folder.strip("/") else MARKER
