"""Raw records a second of `ecellm build`, beside the same transformations written plainly with pandas in one process.

Both sides build the ten tasks of the `sound` recipe from the same made-up raw files at paper size (about 2.2 million
records to 116,528 samples, the numbers of spec A.4, which both must reach), read, cleaned, split, controlled for
quality and written as Parquet rows; each in a process of its own from a cold start, imports and Ray's start included,
one thread for each library. The build uses two workers. They take turns, and the figure is the median of the ratios of
the turns. `ECELLM_BENCH_SCALE` (default 1) makes fewer raw records and samples, `ECELLM_BENCH_TURNS` (default 1) more
turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from ecellm.config.schema import Build, MadeUp, Model, Run, Sizes, Sources
from ecellm.sources.marketplace.write import source_files, write_marketplace

GOAL, WORKERS, SEED = 1.6, 2, 1
MOST_MIB = 4096
ROOT = Path(__file__).resolve().parents[2]
SIDES = {
    "build": "from ecellm.ecinstruct.build import build; build(run)",
    "pandas": "from tests.bench._plain_pandas import build; build(Path(run.sources.root), Path(run.out), run)",
}


def run() -> dict[str, Any]:
    """Measure."""
    scale, turns = float(os.environ.get("ECELLM_BENCH_SCALE", "1")), int(os.environ.get("ECELLM_BENCH_TURNS", "1"))
    with tempfile.TemporaryDirectory(prefix="ecellm-bench-") as folder:
        raw = Path(folder, "raw")
        write_marketplace(str(raw), settings(scale), SEED, WORKERS)
        samples: list[dict[str, float]] = []
        peaks: dict[str, float] = {}
        busy: dict[str, float] = {}
        for turn in range(turns):
            took: dict[str, float] = {}
            for side in sorted(SIDES, reverse=turn % 2 == 1):
                out = Path(folder, f"{side}-{turn}")
                took[side], peak, cpu = measure(side, run_file(raw, out, scale))
                busy[side] = max(cpu / took[side], busy.get(side, 0))
                peaks[side] = max(peak, peaks.get(side, 0))
                check(side, out, scale)
            samples.append(took)
        records = json.loads(Path(folder, "build-0", "rows", "card.json").read_text())["raw_records"]
    ratios = [took["pandas"] / took["build"] for took in samples]
    figure = statistics.median(ratios)
    return {
        "figure": round(figure, 3), "unit": "times the records a second of pandas", "goal": GOAL,
        "versus": "plain pandas, one process", "holds": figure >= GOAL and peaks["build"] < MOST_MIB * 2**20,
        "samples": [{side: round(records / seconds) for side, seconds in took.items()} for took in samples],
        "seconds": [{side: round(seconds, 1) for side, seconds in took.items()} for took in samples],
        "cores_busy": {side: round(cores, 2) for side, cores in busy.items()},
        "peak_memory_mib": {side: round(peak / 2**20) for side, peak in peaks.items()},
        "raw_records": records, "how": " ".join((__doc__ or "").split("\n\n")[0].split()),
    }  # fmt: skip


def settings(scale: float) -> MadeUp:
    """The marketplace at paper size."""
    return MadeUp(products=max(2000, int(160_000 * scale)), users=max(1500, int(60_000 * scale)),
                  queries=max(800, int(32_000 * scale)), questions=max(3000, int(220_000 * scale)))  # fmt: skip


def run_file(raw: Path, out: Path, scale: float) -> Run:
    """A run from the raw files."""
    sizes = Sizes(train=int(10_000 * scale), val=int(1000 * scale), test=int(1000 * scale), ood=int(1000 * scale))
    pm = Sizes(train=int(2022 * scale), val=int(253 * scale), test=int(253 * scale))
    return Run(name="bench", out=str(out), seed=SEED, model=Model(base="tiny"),
               sources=Sources(root=str(raw), files=source_files()),
               build=Build(sizes=sizes, task_sizes={"PM": pm}, max_words=60, workers=WORKERS))  # fmt: skip


def measure(side: str, run: Run) -> tuple[float, float, float]:
    """Of the process and all that it started: seconds, peak memory in bytes (shared pages once for each process), and
    seconds of CPU."""
    code = (f"import sys; from pathlib import Path; from ecellm.config.schema import Run\n"
            f"run = Run.model_validate_json(sys.argv[1])\n{SIDES[side]}")  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, run.model_dump_json()], cwd=ROOT, env=environment,
                               stdout=subprocess.DEVNULL, stderr=sys.stderr)  # fmt: skip
    peak: list[float] = [0.0]
    cpu: dict[tuple[int, float], float] = {}
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, cpu), daemon=True)
    watcher.start()
    if process.wait():
        raise RuntimeError(f"{side} failed with {process.returncode}")
    return time.monotonic() - begun, peak[0], sum(list(cpu.values()))


def _watch(pid: int, peak: list[float], cpu: dict[tuple[int, float], float]) -> None:
    while True:
        try:
            me = psutil.Process(pid)
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                    spent = process.cpu_times()
                    cpu[process.pid, process.create_time()] = spent.user + spent.system
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total)
        except psutil.Error:
            return
        time.sleep(0.5)


def check(side: str, out: Path, scale: float) -> None:
    """Both sides must have made all samples."""
    from ecellm.records import SPLITS
    from ecellm.rows import read_table, row_files
    from ecellm.storage.open import open_storage

    storage = open_storage(str(out))
    found = sum(
        sum("Single" in setting for setting in read_table(storage, key)["setting"].to_pylist())
        for split in SPLITS for key in row_files(storage, "rows", split)
    )  # fmt: skip
    run = run_file(out, out, scale)
    sizes = [run.build.task_sizes.get(task, run.build.sizes) for task in run.build.tasks]
    wanted = sum(size.train + size.val + size.test for size in sizes) + 6 * run.build.sizes.ood
    if found != wanted:
        raise RuntimeError(f"{side} made {found} samples of {wanted}")
