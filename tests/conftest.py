"""Fixtures for all tests: the real data beside the checkout, an S3 server in process, a clock that does not wait.

Nothing is patched but the environment. The S3 server is moto's, spoken to over a real socket by real boto3.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, golden scores and specifications; skips where there is none."""
    folder = Path(os.environ.get("ECELLM_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip("no ../shared beside the checkout and ECELLM_SHARED is not set")
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def aws(s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> str:
    """Standard AWS settings that point at the server; its address."""
    endpoint = f"http://{s3_server[0]}:{s3_server[1]}"
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return endpoint


@pytest.fixture
def s3(aws: str) -> str:
    """An empty `s3://bucket/prefix` on the server."""
    import boto3

    bucket = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/run"


@pytest.fixture
def web() -> Iterator[Callable[..., str]]:
    """Serves folders over http on this machine: `web(folder)` is the address.

    `ranges=False` for a server without them, `head=False` for one that answers 403 to HEAD.
    """
    servers: list[ThreadingHTTPServer] = []

    def serve(folder: Path, *, ranges: bool = True, head: bool = True) -> str:
        handler = partial(FolderServer, folder=folder, ranges=ranges, head=head)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class FolderServer(BaseHTTPRequestHandler):
    """Files of a folder; `fails` of the first requests get a 503, and bodies of whole files lose their last `cut`."""

    fails = 0
    cut = 0

    def __init__(self, *arguments: object, folder: Path, ranges: bool, head: bool) -> None:
        self.folder, self.ranges, self.head = folder, ranges, head
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        if self.head:
            self.answer(body=False)
        else:
            self.send_error(403)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        if FolderServer.fails > 0:
            FolderServer.fails -= 1
            self.send_error(503)
            return
        if not path.is_file():
            self.send_error(404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range") if self.ranges else None
        if wanted and not data:
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[int(first) : int(last) + 1]
        self.send_header("Content-Length", str(len(data)))
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) - (0 if self.ranges else FolderServer.cut)])

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""
