"""Runs that are preempted at a random moment: how many optimizer steps must be done again?

With notice: SIGTERM to the driver, as Slurm, a spot watch or `ecellm submit` pass it on; the run saves and leaves
with 75. Without: SIGKILL to every process of the run at once, as when a machine vanishes. Either way the same command
goes on to the end. Steps lost are those that were done when it happened and are done again: none with notice (the
step in flight is finished first), at most one checkpoint interval without. What was done is read from the metrics,
which a stop writes out, or where nothing could be written from the progress line on a terminal. Half of the runs are
of each kind; the moments are drawn from a fixed seed. The figure is the most steps that a run with notice lost.
`ECELLM_BENCH_RUNS` sets the number of runs (20).
"""

from __future__ import annotations

import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.box import ROOT
from tests.cluster.slurm_jobs import run_file, steps

EVERY, TOTAL = 20, 100


def run() -> dict[str, Any]:
    """All runs, from one prepared state."""
    n = int(os.environ.get("ECELLM_BENCH_RUNS", "20"))
    draw = random.Random(6)
    with tempfile.TemporaryDirectory(prefix="ecpreempt") as folder:
        prepared = Path(folder) / "prepared"
        path = run_file(prepared)
        for stage in ("build", "prepare"):
            subprocess.run([sys.executable, "-m", f"jobs.{stage}", path], cwd=ROOT, check=True, capture_output=True)
        samples = []
        for number in range(n):
            out = Path(folder) / f"out{number}"
            shutil.copytree(prepared / "out", out)
            at = draw.randint(EVERY // 2, TOTAL - EVERY // 2)
            samples.append(_preempted(path, out, at, notice=number % 2 == 0))
            print(samples[-1], file=sys.stderr, flush=True)
            shutil.rmtree(out)
    with_notice = [one["lost"] for one in samples if one["notice"]]
    without = [one["lost"] for one in samples if not one["notice"]]
    whole = all(one["whole"] for one in samples)
    return {
        "figure": max(with_notice), "unit": "steps lost with notice, the most of any run",
        "versus": f"without notice {max(without, default=0)} of a checkpoint interval of {EVERY}", "goal": 0,
        "holds": whole and max(with_notice) == 0 and max(without, default=0) <= EVERY, "samples": samples,
        "how": __doc__,
    }  # fmt: skip


class Watched:
    """A training whose progress line is read from a terminal; `step` is the last one shown."""

    def __init__(self, words: list[str]) -> None:
        self.step, self.text = 0, ""
        ours, theirs = pty.openpty()
        self.driver = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=_environment(),
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._thread = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._thread.start()

    def _read(self, terminal: int) -> None:
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # the last process with this terminal has ended
                return
            self.text = (self.text + piece.decode(errors="replace"))[-20_000:]
            for shown in re.findall(rf"(\d+)/{TOTAL}\b", self.text):
                self.step = max(self.step, int(shown))

    def until(self, step: int, seconds: float = 200) -> None:
        """Until that step is shown as done."""
        deadline = time.monotonic() + seconds
        while self.step < step:
            if time.monotonic() > deadline or self.driver.poll() is not None:
                raise TimeoutError(f"no step {step}: exit code {self.driver.poll()}\n{self.text[-2000:]}")
            time.sleep(0.005)


def _preempted(path: str, out: Path, at: int, *, notice: bool) -> dict[str, Any]:
    words = [
        sys.executable, "-m", "jobs.train", path, f"--out={out}", f"--train.max_steps={TOTAL}",
        f"--checkpoint.every={EVERY}", "--cluster.workers=2", "--train.batch_size=32",
    ]  # fmt: skip
    first = Watched(words)
    first.until(at)
    if notice:
        first.driver.send_signal(signal.SIGTERM)
        code = first.driver.wait(120)
        # It flushed its metrics with the state: what it had done is exactly known.
        begun = steps(out)[-1]["step"]
    else:
        _kill(first.driver.pid)
        code = first.driver.wait(120)
        begun = first.step
    second = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=_environment(), timeout=250, check=False
    )
    resumed = [int(step) for step in re.findall(r"going on after step (\d+)", second.stderr)]
    lines = [line["step"] for line in steps(out)]
    return {
        "notice": notice, "asked at": at, "done": begun, "code": code, "resumed": resumed[0] if resumed else 0,
        "lost": max(0, begun - (resumed[0] if resumed else 0)),
        "whole": second.returncode == 0 and lines == list(range(1, TOTAL + 1)) and code == (75 if notice else -9),
    }  # fmt: skip


def _kill(pid: int) -> None:
    """The power goes: every process of the run at once."""
    everything = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for one in everything:
        one.suspend()
    for one in everything:
        one.kill()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TERM": "xterm",
        "COLUMNS": "120",
    }
