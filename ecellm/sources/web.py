"""Raw files on http(s): a file object that reads ranges. Nothing is kept on disk where the server knows ranges.

A server that does not is read once, from front to back, into a temporary file. Statuses that pass by themselves are
tried again by urllib3; a refusal is told as it is, but for one of HEAD: an address may be signed for GET alone. No
listing: a folder on http must be named file by file.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from typing import IO, Any

from ecellm.errors import DataError

PASSING = (429, 500, 502, 503, 504)
TRIES, TIMEOUT_S = 5, 60


def is_web(location: str) -> bool:
    """Whether a location is on http(s)."""
    return location.startswith(("http://", "https://"))


def bare(location: str) -> str:
    """A location without the query of an address, where signatures and keys stand: for names and for their ends."""
    return location.partition("#")[0].partition("?")[0] if is_web(location) else location


class Web:
    """One file on a server; `size` in bytes."""

    def __init__(self, url: str) -> None:
        import urllib3

        self.url = url
        retry = urllib3.Retry(
            TRIES, connect=2, status_forcelist=PASSING, backoff_factor=0.3, allowed_methods=("HEAD", "GET")
        )
        self._pool = urllib3.PoolManager(retries=retry, timeout=TIMEOUT_S)
        head = self._ask("HEAD", refusal=True)
        if head.status < 400:
            self.size = int(head.headers.get("Content-Length", 0))
            self.ranged = self.size > 0 and head.headers.get("Accept-Ranges", "").lower() == "bytes"
        else:
            self.size, self.ranged = self._probe()

    def _probe(self) -> tuple[int, bool]:
        """(bytes, whether ranges are known) by asking for the first byte. Raises DataError."""
        reply = self._ask("GET", {"Range": "bytes=0-0"}, preload=False, refusal=True)
        reply.close()  # where ranges are not known, the whole file would come
        if reply.status == 416:  # an empty file has no first byte
            return 0, False
        if reply.status >= 400:
            raise self._fault(f"status {reply.status}")
        if reply.status != 206:
            return int(reply.headers.get("Content-Length", 0)), False
        total = reply.headers.get("Content-Range", "").rpartition("/")[2]
        return (int(total), True) if total.isdecimal() else (0, False)

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file. Raises DataError where the server stops answering, or answers with another range."""
        if length <= 0:
            return b""
        reply = self._ask("GET", {"Range": f"bytes={start}-{start + length - 1}"})
        if reply.status != 206 or len(reply.data) != length:
            raise self._fault(f"status {reply.status} and {len(reply.data)} bytes for a range of {length}")
        return bytes(reply.data)

    def whole(self) -> IO[bytes]:
        """The file in a temporary file, for servers without ranges. Raises DataError where its body breaks off."""
        import urllib3

        kept = tempfile.TemporaryFile(prefix="ecellm-web-")  # noqa: SIM115
        try:
            reply = self._ask("GET", preload=False)
            shutil.copyfileobj(reply, kept, 1 << 20)
            reply.release_conn()
        except urllib3.exceptions.HTTPError as error:
            kept.close()
            raise self._fault(str(error).partition("\n")[0][:200]) from error
        except BaseException:
            kept.close()
            raise
        kept.seek(0)
        return kept

    def _ask(
        self, method: str, headers: dict[str, str] | None = None, *, preload: bool = True, refusal: bool = False
    ) -> Any:
        """The reply. Raises DataError where there is none, and for a refusal unless `refusal` is awaited."""
        import urllib3

        # Bytes as they lie there: a server that packs a transfer would make ranges and digests meaningless.
        asked = {"Accept-Encoding": "identity", **(headers or {})}
        try:
            reply = self._pool.request(method, self.url, headers=asked, preload_content=preload)
        except urllib3.exceptions.HTTPError as error:
            raise self._fault(str(error).partition("\n")[0][:200]) from error
        if reply.status >= 400 and not refusal:
            raise self._fault(f"status {reply.status}")
        return reply

    def _fault(self, found: str) -> DataError:
        return DataError(f"{self.url}: cannot be read", found=found, expected="a raw file that the server gives out",
                         mend="check the address, or download the file and name its path")  # fmt: skip


class Ranged(io.RawIOBase):
    """A file read by ranges: `fetch(start, length) -> bytes`. Wrap it in a BufferedReader."""

    def __init__(self, fetch: Any, size: int) -> None:
        self._fetch, self._size, self._at = fetch, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._fetch(self._at, max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
