"""A Slurm box for the whole session, and a fake metadata service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.box import NoSlurm, SlurmBox
from tests.cluster.head import ROOT, Head


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmBox]:
    """Three real Slurm nodes, each with two GPUs by name; skips, loudly, where this machine cannot hold them."""
    try:
        with SlurmBox(tmp_path_factory.mktemp("box"), nodes=3, cpus=2, gpus=2) as made:
            yield made
    except NoSlurm as reason:
        pytest.skip(f"REAL SLURM IS NOT TESTED HERE: {reason}")


class Metadata:
    """A metadata service, on loopback unless said: `items` is path to text, `asked` what it was asked.

    Where `only` is set the items are for the machine of that address, as each machine has its own.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.items: dict[str, str] = {}
        self.only = ""
        self.asked: list[tuple[str, str, str]] = []
        self.token = "a-token"
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                service.asked.append(("PUT", self.path, self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")))
                self._say(200, service.token)

            def do_GET(self) -> None:
                shown = self.headers.get("X-aws-ec2-metadata-token") or self.headers.get("Metadata-Flavor") or ""
                service.asked.append(("GET", self.path, shown))
                if shown not in (service.token, "Google"):
                    self._say(401, "")
                elif self.path in service.items and service.only in ("", self.client_address[0]):
                    self._say(200, service.items[self.path])
                else:
                    self._say(404, "")

            def _say(self, status: int, text: str) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self.host = f"{address}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """A fake metadata service that both clouds' settings point at."""
    service = Metadata()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{service.host}")
    monkeypatch.setenv("GCE_METADATA_HOST", service.host)
    yield service
    service.close()


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A real Ray head with its job server."""
    with Head(dashboard=True, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)) as made:
        yield made


@pytest.fixture(scope="session")
def top() -> Path:
    """The top folder of the checkout."""
    return Path(__file__).resolve().parents[2]
