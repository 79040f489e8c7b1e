"""A stage's artefact is complete when its marker says so, for the same inputs.

The marker `COMPLETE` is written last, and holds the fingerprint of everything that the artefact depends on. Another
fingerprint means another artefact: it is made again, never trusted.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from ecellm.errors import StorageError
from ecellm.storage.base import Storage, join

MARKER = "COMPLETE"


def fingerprint(*parts: object) -> str:
    """sha256 (32 hex digits) of the canonical JSON of the parts; pydantic models count by their values."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(part: object) -> object:
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json")
    if isinstance(part, dict):
        return {str(key): _plain(value) for key, value in part.items()}
    return [_plain(value) for value in part] if isinstance(part, list | tuple) else part


def marker(storage: Storage, folder: str) -> dict[str, Any] | None:
    """What the marker of an artefact says; None where there is none."""
    key = join(folder, MARKER)
    try:
        text = storage.read(key)
    except FileNotFoundError:
        return None
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise StorageError(
            f"{join(storage.root, key)}: not a marker",
            found=text[:80].decode(errors="replace"),
            expected="a JSON object",
            mend="delete the file; the stage is made again",
        ) from error


def is_complete(storage: Storage, folder: str, wanted: str) -> bool:
    """Whether the artefact is whole and was made from these inputs."""
    found = marker(storage, folder)
    return found is not None and found.get("fingerprint") == wanted


def publish(storage: Storage, folder: str, made_from: str, **facts: object) -> None:
    """Declare an artefact complete. Call this after its last byte is written."""
    content = {"fingerprint": made_from, **facts}
    storage.write(join(folder, MARKER), json.dumps(content, indent=1, sort_keys=True).encode())


def clear(storage: Storage, folder: str) -> None:
    """Remove an artefact, marker first, so that no reader trusts what is being removed."""
    storage.delete(join(folder, MARKER))
    for key, _ in list(storage.list(join(folder, "").rstrip("/") + "/")):
        storage.delete(key)
