"""The watch for notices beside a real Ray. It comes last: the node that it drains is the one that other tests used."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest

from tests.cluster.conftest import Metadata
from tests.cluster.head import ROOT, Head

ACTION = "/latest/meta-data/spot/instance-action"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ecellm.cli", "cluster", "watch", "--cloud", "aws", "--period", "0.2", *words]


def test_where_no_cloud_answers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    words = [*command("--address", "127.0.0.1:1"), "--cloud", "auto"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 5
    assert "no metadata service answers" in done.stderr


@pytest.mark.heavy
@pytest.mark.timeout(150)
def test_a_notice_drains_the_node_of_a_real_cluster(metadata: Metadata, head: Head) -> None:
    """The command as the launcher files start it, with a notice that comes while it watches."""
    env = head.environment | {
        "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{metadata.host}",
    }  # fmt: skip
    watching = subprocess.Popen(command("--address", head.address), stderr=subprocess.PIPE, text=True, env=env)
    assert watching.stderr is not None
    said = watching.stderr.readline()
    assert "watching Aws for node" in said, said
    node = said.split()[-1]
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    metadata.items[ACTION] = f'{{"action": "terminate", "time": "{at:%Y-%m-%dT%H:%M:%SZ}"}}'
    _, rest = watching.communicate(timeout=90)
    assert watching.returncode == 0, rest
    assert "drained" in rest
    from ray._raylet import GcsClient

    # A node with work stays until its deadline; an idle one, as this may be, leaves at once.
    service = GcsClient(address=head.address)
    alive = {one.hex() for one, facts in service.get_all_node_info().items() if facts.state == 0}
    assert node in service.get_draining_nodes() or node not in alive
