"""A Slurm of spot machines and the switches of such a site: the checkout elsewhere, labels, a dashboard, a watch."""

from __future__ import annotations

import datetime
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.box import ROOT, SlurmBox
from tests.cluster.conftest import Metadata
from tests.cluster.slurm_jobs import checkpoints, run_file, steps, submit

ACTION = "/latest/meta-data/spot/instance-action"
ASK = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {open(sys.argv[2]).read().strip()}"})
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=20).status)
"""


@pytest.mark.long
@pytest.mark.heavy
@pytest.mark.timeout(800)
def test_the_clouds_notice_to_one_node_moves_the_run_to_the_other(box: SlurmBox, tmp_path: Path) -> None:
    at = box.folder / tmp_path.name
    out, logs = at / "out", at / "job/logs"
    path = run_file(at)
    for stage in ("build", "prepare"):
        subprocess.run([sys.executable, "-m", f"jobs.{stage}", path], cwd=ROOT, check=True, capture_output=True)
    cloud = Metadata(f"{box.net}.1")
    try:
        job = submit(
            box, at / "job", "train", "run.toml", "--train.max_steps=800", "--checkpoint.every=20",
            "--cluster.min_workers=1", "--cluster.train_labels", '{"ecellm.io/role": "train"}', cwd=at,
            ECELLM_HOME=str(ROOT), ECELLM_LABELS="ecellm.io/role=train", ECELLM_DASHBOARD="1", ECELLM_WATCH="aws",
            AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://{cloud.host}",
        )  # fmt: skip
        job.until("dashboard: ssh", 120)
        tunnel = re.search(r"-L 8265:(127\.0\.0\.1:\d+) n1, with the token in (\S+)", job.said())
        assert tunnel, job.said()
        token = Path(tunnel[2])
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        asked = box.within("n1", sys.executable, "-c", ASK, f"http://{tunnel[1]}/api/version", str(token))
        assert asked.stdout.strip() == "200", asked.stderr
        deadline = time.monotonic() + 150
        while not checkpoints(out):
            assert time.monotonic() < deadline, job.said()
            time.sleep(0.2)
        heard = logs.glob("*/ray-n2.log")
        while not any("watching" in log.read_text() for log in heard):
            assert time.monotonic() < deadline, job.said()
            time.sleep(0.2)
            heard = logs.glob("*/ray-n2.log")
        goes = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=120)
        cloud.only = box.address("n2")
        cloud.items[ACTION] = f'{{"action": "terminate", "time": "{goes:%Y-%m-%dT%H:%M:%SZ}"}}'
        assert job.wait(400) == ("COMPLETED", 0), job.said()
    finally:
        cloud.close()
    said = job.said()
    assert "is about to be taken away: the workers save and go on elsewhere" in said
    found = steps(out)
    assert [line["step"] for line in found] == list(range(1, 801)), "no step was done twice"
    assert [line["workers"] for line in found] == sorted((line["workers"] for line in found), reverse=True)
    assert {line["workers"] for line in found} == {1, 2}
    assert "draining its Ray node" in next(logs.glob("*/ray-n2.log")).read_text()
    assert "draining" not in next(logs.glob("*/ray-n1.log")).read_text()
