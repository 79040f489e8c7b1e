"""kill -9 of workers and driver at random moments of `ecellm evaluate`: nothing is asked twice, nothing is missing.

A tiny random model answers real rows of all ten tasks, as a process of its own with a private Ray. In each trial the
command is killed again and again, at moments drawn anew: a random actor, or the driver, which is then started anew at
once with another number of workers (1 to 4), until it comes to its end. Trials go on until there were
`ECELLM_BENCH_KILLS` kills, 30 unless told (`ECELLM_BENCH_SEED` draws others). The log of each trial is read part by
part. The claim: no key stands in it twice, every question has its answer, and `scores.json` is that of an undisturbed
run to the last byte.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ecellm.config.schema import Run, TinySizes
from ecellm.model.load import load_tokenizer
from ecellm.model.tiny import make_model
from tests.bench._common import figure, say
from tests.bench._real import ROOT
from tests.bench._stage import changed, fresh_out

SIZES = TinySizes(hidden=256, layers=4, heads=4, vocab=49152)
LONGEST_S = 25.0
"""A kill comes within so many seconds after a start, or after the kill before it."""


@dataclass
class Trial:
    """One OUT from its beginning to its end."""

    driver_kills: int = 0
    actor_kills: int = 0
    answers: int = 0
    twice: int = 0
    missing: int = 0
    same: bool = False
    workers: list[int] = field(default_factory=list)


def run() -> dict[str, Any]:
    wanted = int(os.environ.get("ECELLM_BENCH_KILLS", "30"))
    draw = random.Random(int(os.environ.get("ECELLM_BENCH_SEED", "1")))
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="ecellm-bench-") as folder:
        say("the undisturbed run")
        calm = _prepared(Path(folder) / "calm")
        begun = time.monotonic()
        if _started(calm, 1).wait() != 0:
            raise RuntimeError("the undisturbed run failed")
        say(f"took {time.monotonic() - begun:.0f} s")
        expected = _scores(calm)
        while sum(one.driver_kills + one.actor_kills for one in trials) < wanted:
            out = _prepared(Path(folder) / f"trial-{len(trials)}")
            left = wanted - sum(one.driver_kills + one.actor_kills for one in trials)
            trials.append(_trial(out, draw, left))
            last = trials[-1]
            last.same = _scores(out) == expected
            last.answers, last.twice, last.missing = _log(out)
            say(f"trial {len(trials)}: {last}")
    kills = sum(one.driver_kills + one.actor_kills for one in trials)
    twice, missing = sum(one.twice for one in trials), sum(one.missing for one in trials)
    return figure(
        twice + missing, "requests twice or missing", versus=sum(one.answers for one in trials),
        goal="0, and scores equal to the last byte", holds=not (twice or missing) and all(one.same for one in trials),
        kills=kills, driver_kills=sum(one.driver_kills for one in trials),
        actor_kills=sum(one.actor_kills for one in trials), twice=twice, missing=missing,
        scores_equal=f"{sum(one.same for one in trials)} of {len(trials)} trials",
        workers=sorted({n for one in trials for n in one.workers}), samples=[vars(one) for one in trials],
        how=f"{kills} kills over {len(trials)} trials of {trials[0].answers} questions each",
    )  # fmt: skip


def _prepared(out: Path) -> Path:
    """An OUT with its run file beside it."""
    run = fresh_out(out)
    tokenizer = load_tokenizer(str(out / "base"))
    for path in (out / "base").glob("*.safetensors"):
        path.unlink()
    make_model(SIZES, tokenizer, max_length=1024, seed=1).save_pretrained(out / "base")
    settings = {"limit": int(os.environ.get("ECELLM_BENCH_RESUME_ROWS", "20")), "systems": ["untuned"]}
    _write(changed(run, evaluate=settings, cluster={"max_failures": 50}), out)
    return out


def _write(run: Run, out: Path) -> None:
    """The whole run as a run file, so that nothing is resolved again: JSON is what our TOML reader's parts are."""
    (out.parent / f"{out.name}.json").write_text(run.model_dump_json())


def _started(out: Path, workers: int) -> subprocess.Popen[bytes]:
    """`evaluate` of an OUT in a process of its own."""
    code = (
        "import sys; from ecellm.config.schema import Run; from ecellm.evaluate.run import evaluate\n"
        "run = Run.model_validate_json(open(sys.argv[1]).read()); workers = int(sys.argv[2])\n"
        "more = {'evaluate': run.evaluate.model_copy(update={'workers': workers})}\n"
        "evaluate(run.model_copy(update=more))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out.parent / f"{out.name}.json"), str(workers)], cwd=ROOT, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _trial(out: Path, draw: random.Random, most: int) -> Trial:
    """Run to the end, with at most so many kills."""
    trial = Trial(workers=[draw.randint(1, 4)])
    process = _started(out, trial.workers[-1])
    while True:
        kills = trial.driver_kills + trial.actor_kills
        try:
            code = process.wait(timeout=draw.uniform(0, LONGEST_S) if kills < most else None)
        except subprocess.TimeoutExpired:
            actors = _actors(process.pid)
            if actors and draw.random() < 0.7:
                trial.actor_kills += _killed(draw.choice(actors).pid)
                continue
            process.kill()
            process.wait()
            trial.driver_kills += 1
            trial.workers.append(draw.randint(1, 4))
            process = _started(out, trial.workers[-1])
            continue
        if code != 0:
            raise RuntimeError(f"evaluation ended with {code} after {trial}")
        return trial


def _actors(driver: int) -> list[psutil.Process]:
    """Processes of the driver's Ray that hold a model."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if any("ray::Holder" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.pid)


def _killed(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _scores(out: Path) -> bytes:
    return (out / "baselines/untuned/scores.json").read_bytes()


def _log(out: Path) -> tuple[int, int, int]:
    """Different questions in the log, answers that are one too many, and rows without an answer."""
    keys = Counter(
        json.loads(line)["key"]
        for part in (out / "answers/untuned").glob("part-*.jsonl")
        for line in part.read_text().split("\n")[:-1]
    )
    wanted = json.loads((out / "evaluation/COMPLETE").read_text())["voices"]["untuned"]["requests"]
    return len(keys), keys.total() - len(keys), wanted - len(keys)
