"""Streams that are sent to storage."""

from __future__ import annotations

import io
from typing import BinaryIO


class Unclosed(io.RawIOBase):
    """A stream that stays open when whoever reads it closes it: boto3 closes what it has sent."""

    def __init__(self, stream: BinaryIO | io.RawIOBase) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
