"""A run that is killed over and over sees the samples and makes the losses of one that is not.

Compared: one run of ZeRO-3 on packed rows, undisturbed, and the same run killed with SIGKILL at 50 random moments (a
random rank first, then the others, as a cluster does it), each time going on at a world size drawn from 1, 2 and 4;
checkpoints every 10 steps, published in the background. For every optimizer step the multiset of sample ids over
ranks must be the undisturbed run's, in every attempt that did the step. Figure: largest relative difference of a
step's loss. Then once more with 2 ranks throughout and 15 kills: losses must be equal to the last bit.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from ecellm.config.schema import Checkpoint
from ecellm.records import World
from ecellm.storage.local import LocalStorage
from ecellm.train import attempts
from ecellm.train.attempts import Fence
from ecellm.train.board import Order, Status
from ecellm.train.compute import Arithmetic
from ecellm.train.keeping import Keeper, position_of
from ecellm.train.loop import Job, fit
from tests.bench._common import figure, say
from tests.bench._ranks import Ranks
from tests.train.toys import ToyTokens, toy_engine, toy_layout, toy_run

KILLS, SIZES, STEPS, LONGEST_S = 50, (1, 2, 4), 1500, 3.0
SAME_KILLS, SAME_STEPS = 15, 400
GOAL = 1e-5
Log = dict[int, list[tuple[int, Counter[int], float]]]
"""Step -> (attempt, sample ids over ranks, loss) of each attempt that did it."""


def run() -> Any:
    """Both comparisons."""
    import deepspeed  # noqa: F401  before the first fork

    with tempfile.TemporaryDirectory(prefix="ecellm-bench-") as folder:
        place = Path(folder)
        wanted, _ = _run(place / "whole", STEPS, 0, (1,), 1)
        killed, sizes = _run(place / "killed", STEPS, KILLS, SIZES, 2)
        same_wanted, _ = _run(place / "same-whole", SAME_STEPS, 0, (2,), 3)
        same, _ = _run(place / "same", SAME_STEPS, SAME_KILLS, (2,), 4)
    apart = _apart(wanted, killed)
    ids = _same_ids(wanted, killed) and _same_ids(same_wanted, same)
    bits = _apart(same_wanted, same)
    redone = sum(len(done) - 1 for done in killed.values())
    return figure(
        apart, "largest relative difference of a step's loss", versus=None,
        goal=f"at most {GOAL:g}, the same ids, bitwise at the same size",
        holds=apart <= GOAL and ids and bits == 0.0 and len(killed) == STEPS, how=__doc__, same_ids=ids,
        difference_at_the_same_size=bits, kills=KILLS + SAME_KILLS, steps=STEPS, steps_done_again=redone,
        world_sizes=dict(Counter(sizes)), samples=[apart, bits],
    )  # fmt: skip


def _run(place: Path, steps: int, kills: int, sizes: tuple[int, ...], seed: int) -> tuple[Log, list[int]]:
    """What a run did, killed so often, and the sizes of its attempts."""
    draw, used = random.Random(seed), []
    place.mkdir()
    for turn in range(kills + 1):
        size = draw.choice(sizes)
        used.append(size)
        ranks = Ranks(size, _attempt, str(place), steps)
        if turn == kills:
            codes = ranks.codes(900)
            if any(codes):
                raise RuntimeError(f"the last attempt ended with {codes}")
            break
        time.sleep(draw.uniform(0.2, LONGEST_S))
        ranks.kill(draw.randrange(size))
        time.sleep(draw.choice((0.0, 0.1, 1.0)))
        ranks.kill_all()
        if turn % 10 == 9:
            say(f"{turn + 1} kills, {_done(place)} of {steps} steps")
    say(f"{place.name}: {_done(place)} of {steps} steps, {len(used)} attempts")
    return _log(place), used


class _Hooks:
    """Writes down what each step saw."""

    def __init__(self, attempt: int, world: World, place: str, tokens: Watched) -> None:
        self.attempt, self._tokens, self._loss = attempt, tokens, 0.0
        self._file = (Path(place) / f"steps-{attempt:05d}-{world.rank}.jsonl").open("a")

    def order(self) -> Order:
        return Order.GO

    def at(self, step: int, phase: str) -> None:
        if phase == "update":  # all samples of the step have been read, none of validation
            self._ids = self._tokens.taken()
        elif phase == "data":
            self._tokens.taken()

    def update(self, status: Status) -> None:
        self._loss = status.loss or 0.0

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, step: int) -> None:
        """Nothing."""

    def after_step(self, step: int) -> None:
        self._file.write(json.dumps({"step": step, "ids": self._ids, "loss": self._loss}) + "\n")
        self._file.flush()


class Watched(ToyTokens):
    """Remembers which samples were asked for."""

    def sample(self, i: int) -> Any:
        _TAKEN.append(int(i))
        return super().sample(i)

    def taken(self) -> list[int]:
        """Samples since the last call."""
        found = list(_TAKEN)
        _TAKEN.clear()
        return found


_TAKEN: list[int] = []


def _attempt(world: World, place: str, steps: int) -> None:
    """What a rank does until it is killed."""
    import torch.distributed as dist

    storage = LocalStorage(f"{place}/out")
    told = [attempts.begin(storage, workers=world.size) if world.rank == 0 else 0]
    dist.broadcast_object_list(told, src=0)
    tokens = Watched(96)
    settings = {"batch_size": 24, "epochs": 10**6, "max_steps": steps, "learning_rate": 3e-4, "evaluate_every": 10**9}
    run = toy_run(storage.root, train=settings, checkpoint=Checkpoint(every=10))
    job = Job(
        run=run, storage=storage, engine=toy_engine("zero3", run, world), train=tokens,  # type: ignore[arg-type]
        val=ToyTokens(2), layout=toy_layout(pack_tokens=60), hooks=_Hooks(told[0], world, place, tokens),
        arithmetic=Arithmetic(1.0, None),
        keeper=Keeper(
            run=run, storage=storage, position=position_of(run, tokens), attempt=told[0], dtype="float32",  # type: ignore[arg-type]
            side={"config.json": b"{}"}, say=lambda text: None, fence=Fence(storage, told[0]),
        ),
    )  # fmt: skip
    torch.manual_seed(0)
    outcome = fit(job)
    assert outcome is None, outcome


def _log(place: Path) -> Log:
    """Steps that all ranks of an attempt wrote down."""
    parts: dict[tuple[int, int], dict[int, Any]] = defaultdict(dict)
    sizes = {one["attempt"]: one["workers"] for one in attempts.history(LocalStorage(f"{place}/out"))}
    for path in sorted(place.glob("steps-*.jsonl")):
        attempt, rank = (int(part) for part in path.stem.removeprefix("steps-").split("-"))
        for line in path.read_text().splitlines():
            said = _whole(line)
            if said is not None:
                parts[attempt, said["step"]][rank] = said
    log: Log = defaultdict(list)
    for (attempt, step), ranks in sorted(parts.items()):
        if len(ranks) == sizes[attempt]:
            ids = Counter(i for said in ranks.values() for i in said["ids"])
            log[step].append((attempt, ids, ranks[0]["loss"]))
    return log


def _whole(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # cut off by the kill
        return None


def _done(place: Path) -> int:
    return max(_log(place), default=0)


def _same_ids(one: Log, other: Log) -> bool:
    return all(ids == one[step][0][1] for step, done in other.items() for _, ids, _ in done)


def _apart(one: Log, other: Log) -> float:
    """Largest relative difference of losses over steps and attempts."""
    return max(
        abs(loss - one[step][0][2]) / abs(one[step][0][2]) for step, done in other.items() for _, _, loss in done
    )
