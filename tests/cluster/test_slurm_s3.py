"""Nodes that share nothing of a run but S3: each has its own `/tmp`, and OUT is in a bucket."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.cluster.box import SlurmBox
from tests.cluster.slurm_jobs import run_file, submit

BUCKET = "nodes"


@pytest.fixture
def server(box: SlurmBox, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Standard AWS settings that point at an S3 server which all nodes reach."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=f"{box.net}.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield settings
    server.stop()


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(800)
def test_a_run_over_two_nodes_that_share_only_a_bucket(
    box: SlurmBox, server: dict[str, str], tmp_path: Path
) -> None:  # fmt: skip
    at, s3 = box.folder / tmp_path.name, boto3.client("s3")
    path = run_file(at, out=f"s3://{BUCKET}/run")

    def keys(folder: str = "") -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"run/{folder}")
        return [one["Key"].removeprefix("run/") for page in pages for one in page.get("Contents", ())]

    job = submit(box, at / "job", "pipeline", path, "--train.max_steps=240", "--checkpoint.every=20", **server)
    deadline = time.monotonic() + 200
    while not any(key.endswith("/COMPLETE") for key in keys("checkpoints/")):
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.5)
    box.run("scancel", "--signal=USR1", job.id)
    assert job.wait(450) == ("COMPLETED", 0), job.said()
    said = job.said()
    stopped = re.search(r"stopped after step (\d+) of 240, state saved", said)
    assert stopped, said
    assert f"going on after step {stopped.group(1)}" in said
    lines = s3.get_object(Bucket=BUCKET, Key="run/metrics.jsonl")["Body"].read().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 241))
    assert {json.loads(line)["workers"] for line in lines} == {2}
    assert {"model/config.json", "scores.json", "report.html"} <= set(keys())
    assert sorted(one.name for one in at.iterdir()) == ["job", "run.toml"], "nothing of the run is on a shared disk"
