"""Notices that clouds give before they take a machine away, read from the instance metadata service.

Not what happens next (`watch`). AWS: Instance Metadata Service version 2 (a session token first), the item
`spot/instance-action`, which comes two minutes ahead. GCP: `instance/preempted`, 30 seconds ahead. The one decision:
an absent item is an answer (404), a service that does not answer is a fault, and the two are never mixed up.
"""

from __future__ import annotations

import datetime
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Cloud = Literal["aws", "gcp"]
TOKEN_S = 21_600
"""Life of an AWS session token, in seconds; it is fetched anew at half of it."""
GCP_NOTICE_S = 30
_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Notice:
    """The machine goes: why, and in how many seconds."""

    reason: str
    seconds: int


class NoService(Exception):
    """No metadata service of this cloud answers."""


Fetch = Callable[[str, str, Mapping[str, str]], str | None]
"""(method, URL, headers) to the text, None for 404. Raises NoService."""


def fetch(method: str, url: str, headers: Mapping[str, str]) -> str | None:
    """One request to a metadata service. Proxies are not asked: the address is of this machine only."""
    request = urllib.request.Request(url, method=method, headers=dict(headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as reply:
            return str(reply.read().decode(errors="replace"))
    except urllib.error.HTTPError as trouble:
        if trouble.code == 404:
            return None
        raise NoService(f"{url}: status {trouble.code}") from trouble
    except (OSError, http.client.HTTPException) as trouble:
        raise NoService(f"{url}: {trouble}") from trouble


class Aws:
    """Spot notices of EC2. `AWS_EC2_METADATA_SERVICE_ENDPOINT` moves the service, as in the AWS libraries."""

    def __init__(self, get: Fetch = fetch, now: Callable[[], float] = time.time) -> None:
        base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")
        self._base, self._get, self._now = base.rstrip("/"), get, now
        self._token, self._until = "", 0.0

    def notice(self) -> Notice | None:
        """The notice, if there is one. Raises NoService."""
        said = self._item("latest/meta-data/spot/instance-action")
        if said is None:
            return None
        try:
            action = json.loads(said)
            at = datetime.datetime.fromisoformat(action["time"].replace("Z", "+00:00")).timestamp()
        except (ValueError, KeyError, TypeError, AttributeError):
            return Notice("spot", 120)  # whatever it says, it says that the machine goes
        return Notice(f"spot {action.get('action', '')}".strip(), max(1, int(at - self._now())))

    def _item(self, path: str) -> str | None:
        if self._now() > self._until:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
            self._token = self._get("PUT", f"{self._base}/latest/api/token", headers) or ""
            self._until = self._now() + TOKEN_S / 2
        try:
            return self._get("GET", f"{self._base}/{path}", {"X-aws-ec2-metadata-token": self._token})
        except NoService:
            self._until = 0.0  # the token may have been refused
            raise


class Gcp:
    """Preemption of Compute Engine. `GCE_METADATA_HOST` moves the service, as in Google's libraries."""

    def __init__(self, get: Fetch = fetch) -> None:
        self._base, self._get = f"http://{os.environ.get('GCE_METADATA_HOST', 'metadata.google.internal')}", get

    def notice(self) -> Notice | None:
        """The notice, if there is one. Raises NoService."""
        headers = {"Metadata-Flavor": "Google"}
        if (self._get("GET", f"{self._base}/computeMetadata/v1/instance/preempted", headers) or "").strip() == "TRUE":
            return Notice("preempted", GCP_NOTICE_S)
        event = self._get("GET", f"{self._base}/computeMetadata/v1/instance/maintenance-event", headers) or ""
        if event.strip() == "TERMINATE_ON_HOST_MAINTENANCE":
            return Notice("host maintenance", 60)
        return None


def service(cloud: Cloud | Literal["auto"]) -> Aws | Gcp:
    """The service of a cloud; `auto` takes the one that answers. Raises NoService."""
    if cloud != "auto":
        return Aws() if cloud == "aws" else Gcp()
    said = []
    for one in (Aws(), Gcp()):
        try:
            one.notice()
        except NoService as trouble:
            said.append(str(trouble))
        else:
            return one
    raise NoService("; ".join(said))
