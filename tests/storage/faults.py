"""A loopback proxy that stands between a client and an S3 server and does what networks do.

Each connection carries one request (the reply says `Connection: close`), which keeps this small: read the request, ask
what should go wrong, pass the bytes on untouched, break off where told to. Signatures stay valid, since nothing is
rewritten but the connection header of replies.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose operation is `on`, after `skip` of them went well.

    kind: `refuse` (a reply with `status` and `code`), `reset` (no reply), `cut_reply` (the body ends after `after`
    bytes), `corrupt` (byte `after` of the body is another), `lose_reply` (done by the server, never heard by the
    client).
    """

    kind: str
    on: str
    times: int = 1
    skip: int = 0
    status: int = 503
    code: str = "SlowDown"
    after: int = 0


@dataclass
class Proxy:
    """Serves in threads until `close`. `seen` is the list of (operation, fault kind or "")."""

    upstream: tuple[str, int]
    latency: float = 0.0
    """Seconds that every request waits."""
    chance: Callable[[str], Fault | None] | None = None
    """Asked for a fault of an operation where none of `faults` fits."""
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop taking connections."""
        self._door.close()

    def count(self, operation: str) -> int:
        """Requests of an operation so far."""
        return sum(1 for name, _ in self.seen if name == operation)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client:
            try:
                self._pass_on(client)
            except OSError:
                return

    def _pass_on(self, client: socket.socket) -> None:
        head, rest = _head(client)
        if not head:
            return None
        operation = _operation(head)
        fault = self._take(operation)
        if self.latency:
            time.sleep(self.latency)
        if fault and fault.kind == "reset":
            return _reset(client)
        if b"100-continue" in head.lower():
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
        body = rest + _exactly(client, _length(head) - len(rest))
        if fault and fault.kind == "refuse":
            text = f"<Error><Code>{fault.code}</Code><Message>on purpose</Message></Error>".encode()
            said = f"HTTP/1.1 {fault.status} No\r\nContent-Type: application/xml\r\nConnection: close\r\n"
            return client.sendall(said.encode() + f"Content-Length: {len(text)}\r\n\r\n".encode() + text)
        with socket.create_connection(self.upstream) as server:
            server.sendall(re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)[:-2] + b"Connection: close\r\n\r\n" + body)
            reply = b""
            while piece := server.recv(1 << 16):
                reply += piece
        if fault and fault.kind == "lose_reply":
            return _reset(client)
        top, _, content = reply.partition(b"\r\n\r\n")
        cut = fault.after if fault and fault.kind == "cut_reply" else len(content)
        if fault and fault.kind == "corrupt":
            content = content[: fault.after] + bytes([content[fault.after] ^ 1]) + content[fault.after + 1 :]
        return client.sendall(top + b"\r\n\r\n" + content[:cut])

    def _take(self, operation: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.on != operation or fault.times == 0:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                self.seen.append((operation, fault.kind))
                return fault
            fault = self.chance(operation) if self.chance else None
            self.seen.append((operation, fault.kind if fault else ""))
            return fault


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1 << 16)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
    return int(found.group(1)) if found else 0


def _exactly(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = client.recv(min(1 << 16, length - len(data)))
        if not piece:
            return data
        data += piece
    return data


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _operation(head: bytes) -> str:
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    path, _, query = target.partition("?")
    if method == "POST":
        return "Create" if query.startswith("uploads") else "Complete"
    if method == "PUT":
        return "Part" if "partNumber" in query else "Put"
    if method == "GET":
        return "Get" if "/" in path.strip("/") else "Uploads" if "uploads" in query.split("&") else "List"
    return "Abort" if "uploadId=" in query else {"HEAD": "Head", "DELETE": "Delete"}[method]
