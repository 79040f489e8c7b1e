"""Checkpoints survive storage that fails, writers that die anywhere, and two attempts at one step.

Three claims. (1) A run whose S3 answers 30 % of all calls with 500, 503, a reset or a truncated body finishes, every
byte of its checkpoints verifies, and its last losses are those of a run on a quiet folder. It has 14 attempts at a call
(`storage.attempts`; the product's default is 5, with which one call in 400 would still fail at this share: 0.3 ** 5).
(2) Two ranks publish a checkpoint and one of them is killed with SIGKILL at a write point: before, in the midst of, and
after every single write, upload and delete of either rank, enumerated, on a folder and on S3; on a folder also before
each sync, rename, link and unlink within a write. After each, a reader finds the checkpoint before or the new one,
whole, and the next attempt publishes the same step. (3) Two attempts publish one step at the same time: marker and
manifest name exactly one of them, and the other was refused or, where it is the later attempt of the same run, went on
with the manifest of the first; 60 times. Figure: number of cases that went wrong.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ecellm.checkpoint.layout import COMPLETE, MANIFEST, Manifest, Position, Slice, step_folder
from ecellm.checkpoint.restore import read_manifest, read_newest, steps, verify
from ecellm.checkpoint.save import Head, LostRace, save
from ecellm.config.schema import Checkpoint
from ecellm.config.schema import Storage as Settings
from ecellm.errors import CheckpointError, ClusterError, EcellmError
from ecellm.records import World
from ecellm.storage.base import Storage
from ecellm.storage.local import LocalStorage
from ecellm.storage.s3 import S3Storage
from ecellm.train.compute import Arithmetic
from ecellm.train.keeping import Keeper, position_of
from ecellm.train.loop import Job, fit
from tests.bench._common import figure, llama, say
from tests.bench._ranks import FORK
from tests.bench.checkpoint_stall import s3_behind_proxy
from tests.storage.faults import Fault
from tests.train.test_loop import Watcher
from tests.train.toys import ToyTokens, toy_layout, toy_run

SHARE, RACES, VALUES = 0.3, 60, 900_000
ATTEMPTS = 14
"""Tries of one call in the run whose storage fails: 0.3 ** 14 is one call in 20 million."""
ALONE = World(rank=0, size=1)


def run() -> Any:
    """Cases that went wrong, of all."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ecellm-bench-") as folder, s3_behind_proxy() as (root, proxy):
        points = {}
        for name, make in (("folder", lambda key: LocalStorage(f"{folder}/{key}")), ("s3", lambda key: _s3(root, key))):
            points[name] = _killed_anywhere(make, wrong)
            say(f"{name}: {points[name]} write points")
            for trial in range(RACES // 2):
                _race(make(f"race-{trial}"), trial, wrong)
        failing = _failing_storage(Path(folder), root, proxy, wrong)
    for line in wrong:
        say(line)
    return figure(
        float(len(wrong)), "cases that went wrong", versus=None, goal="0", holds=not wrong, how=__doc__,
        cases=sum(points.values()) + RACES + 1, write_points=points, races=RACES, failing_storage=failing,
        samples=wrong,
    )  # fmt: skip


def _s3(root: str, key: str) -> Storage:
    return S3Storage(f"{root}/{key}", Settings(part_mib=5))


def _failing_storage(folder: Path, root: str, proxy: Any, wrong: list[str]) -> dict[str, Any]:
    """A run on S3 that fails so often, beside one on a folder."""
    draw = random.Random(1)
    kinds = (
        lambda: Fault("refuse", "", status=500, code="InternalError"), lambda: Fault("refuse", ""),
        lambda: Fault("reset", ""), lambda: Fault("cut_reply", "", after=draw.randrange(64)),
    )  # fmt: skip
    quiet = _train(LocalStorage(str(folder / "quiet")), Settings())
    proxy.chance = lambda operation: draw.choice(kinds)() if draw.random() < SHARE else None
    settings = Settings(attempts=ATTEMPTS, part_mib=5)
    storage = S3Storage(f"{root}/failing", settings, sleep=lambda seconds: time.sleep(seconds / 20))
    losses: list[float] = []
    try:
        losses = _train(storage, settings)
    except EcellmError as error:
        wrong.append(f"30 % of calls fail: the run ended with {error}")
    proxy.chance = None
    calls = len(proxy.seen)
    failed = sum(1 for _, kind in proxy.seen if kind)
    default = Settings().attempts
    say(f"{failed} of {calls} calls failed; at most {ATTEMPTS} attempts at each (the default is {default})")
    for step in steps(storage)[0]:
        wrong += [f"30 % of calls fail: step {step}: {line}" for line in verify(storage, step_folder(step))]
    if losses != quiet:
        wrong.append("30 % of calls fail: other losses than on a quiet folder")
    return {
        "calls": calls, "failed": failed, "steps": len(losses), "attempts": ATTEMPTS, "default_attempts": default,
    }  # fmt: skip


def _train(storage: Storage, settings: Settings) -> list[float]:
    from ecellm.train.plain import PlainEngine

    tokens, hooks = ToyTokens(40), Watcher()
    run = toy_run(storage.root, train={"epochs": 4}, checkpoint=Checkpoint(every=2, tolerate=0), storage=settings)
    engine = PlainEngine(llama(hidden=192, layers=2, heads=4, vocabulary=4000), run, torch.device("cpu"))
    for half in (8, 0):  # in two attempts, so that a checkpoint is read through the same storage
        part = run.model_copy(update={"train": run.train.model_copy(update={"max_steps": half})})
        job = Job(
            run=part, storage=storage, engine=engine, train=tokens, val=ToyTokens(4), layout=toy_layout(),  # type: ignore[arg-type]
            hooks=hooks, arithmetic=Arithmetic(1.0, None),
            keeper=Keeper(
                run=part, storage=storage, position=position_of(part, tokens), attempt=hooks.attempt, dtype="float32",  # type: ignore[arg-type]
                side={"config.json": b"{}"}, say=lambda text: None,
            ),
        )  # fmt: skip
        outcome = fit(job)
        if outcome is not None:
            raise outcome
        hooks.attempt += 1
    return [status.loss or 0.0 for status in hooks.seen]


@dataclass
class Doomed:
    """Storage that kills its process at write point `at`; it counts them where `at` is below 0."""

    storage: Storage
    at: int
    count: int = 0

    @property
    def root(self) -> str:
        return self.storage.root

    def point(self) -> None:
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def write(self, key: str, data: bytes) -> None:
        with self._around():
            self.storage.write(key, data)

    def write_new(self, key: str, data: bytes) -> bool:
        with self._around():
            return self.storage.write_new(key, data)

    def delete(self, key: str) -> None:
        with self._around():
            self.storage.delete(key)

    def upload_stream(self, stream: Any, key: str) -> None:
        with self._around():
            self.storage.upload_stream(_Breaking(stream, self), key)

    @contextlib.contextmanager
    def _around(self) -> Iterator[None]:
        self.point()
        yield
        self.point()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)


class _Breaking(io.RawIOBase):
    """A stream with a write point in its midst."""

    def __init__(self, stream: Any, doomed: Doomed) -> None:
        super().__init__()
        self._stream, self._doomed, self._half = stream, doomed, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def read(self, size: int = -1) -> bytes:
        if not self._half and self._stream.tell() > self._stream.size // 2:
            self._half = True
            self._doomed.point()
        return bytes(self._stream.read(min(size, 1 << 20) if size and size > 0 else 1 << 20))

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def _killed_anywhere(make: Any, wrong: list[str]) -> int:
    """Every write point of either of two ranks. Returns their number."""
    points = 0
    for rank in (0, 1):
        at = 0
        while True:
            storage = make(f"killed-{rank}-{at}")
            for step in (1, 2, 3):
                _save(storage, step, 1, ALONE, lambda value: [value])
            ended = _publish_by_two(storage, 4, 2, doomed=rank, at=at)
            if all(ended):
                break  # there is no such point: the publish went through
            _check(storage, f"{storage.root}: rank {rank} killed at point {at}", wrong)
            with contextlib.suppress(LostRace):  # it was published before the kill
                _save(storage, 4, 3, ALONE, lambda value: [value])
            if 4 not in steps(storage)[0]:
                wrong.append(f"{storage.root}: step 4 could not be made after rank {rank} was killed at point {at}")
            _check(storage, f"{storage.root}: made again after point {at}", wrong)
            storage.sweep("checkpoints")
            _check(storage, f"{storage.root}: swept after point {at}", wrong)
            at += 1
            points += 1
    return points


def _check(storage: Storage, where: str, wrong: list[str]) -> None:
    """A reader finds a whole checkpoint, with the values that were saved at its step."""
    said: list[str] = []
    found = read_newest(
        storage, [("w", 7, VALUES - 7)], fits=lambda manifest: None, world=ALONE, gather=lambda value: [value],
        say=said.append,
    )  # fmt: skip
    if found is None or found[0].step < 3 or said:
        wrong.append(f"{where}: a reader finds {found and found[0].step}; {said}")
        return
    manifest, held = found
    if not bool((held["w", "param"] == float(manifest.step)).all()):
        wrong.append(f"{where}: values of another step")
    for step in steps(storage)[0]:
        wrong += [f"{where}: step {step}: {line}" for line in verify(storage, step_folder(step))]


def _publish_by_two(storage: Storage, step: int, attempt: int, doomed: int = -1, at: int = -1) -> list[bool]:
    """Whether each rank got through."""
    left, right = FORK.Pipe()
    ranks = []
    for rank, (mine, other) in enumerate(((left, right), (right, left))):
        doom = Doomed(storage, at if rank == doomed else -1)
        ranks.append(FORK.Process(target=_publish, args=(doom, step, attempt, rank, mine, other)))
        ranks[-1].start()
    left.close()
    right.close()
    for process in ranks:
        process.join()
    return [process.exitcode == 0 for process in ranks]


def _publish(storage: Doomed, step: int, attempt: int, rank: int, mine: Connection, other: Connection) -> None:
    torch.set_num_threads(1)  # the threads of the process that was forked are not here
    other.close()
    if isinstance(storage.storage, LocalStorage):
        _within_writes(storage)

    def gather(value: Any) -> list[Any]:
        try:
            mine.send(value)
            theirs = mine.recv()
        except (EOFError, OSError) as error:
            raise ClusterError("the other rank has gone") from error
        return [value, theirs] if rank == 0 else [theirs, value]

    try:
        _save(storage, step, attempt, World(rank=rank, size=2), gather)
        if rank == 0:
            run = toy_run(storage.root, checkpoint=Checkpoint(every=1))
            keeper = Keeper(
                run=run, storage=storage, position=_POSITION, attempt=attempt, dtype="float32", side={}, say=print
            )
            keeper._retain()
    except EcellmError:
        os._exit(1)
    os._exit(0)


def _within_writes(doomed: Doomed) -> None:
    """Write points between the parts of a folder's write: temporary file, its sync, rename or link, sync of the folder.

    For a process that was forked for this: it changes `os`.
    """

    def pointed(real: Any) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            doomed.point()
            return real(*words, **named)

        return call

    for name in ("fsync", "replace", "link", "unlink"):
        setattr(os, name, pointed(getattr(os, name)))


_POSITION = Position(fingerprint="f", seed=1, samples=1, batch_size=1)


def _save(storage: Any, step: int, attempt: int, world: World, gather: Any) -> Manifest:
    from ecellm.checkpoint.layout import Parameter

    half = VALUES // world.size
    values = torch.full((half,), float(step))
    head = Head(
        identity="x", attempt=attempt, position=_POSITION, dtype="float32",
        parameters=(Parameter(name="w", shape=(VALUES,)),), tied={}, lora=None,
    )  # fmt: skip
    slices = [Slice("w", kind, world.rank * half, VALUES, values) for kind in ("param", "exp_avg", "exp_avg_sq")]
    return save(storage, head, step=step, slices=slices, side={"config.json": b"{}"}, world=world, gather=gather)


REFUSED, FAILED = 0, -1
"""What became of an attempt at a step, where it has no manifest to go on with (whose attempts count from 1)."""


def _race(storage: Storage, trial: int, wrong: list[str]) -> None:
    """Two attempts at one step at the same time."""
    barrier, draw = FORK.Barrier(2), random.Random(trial)
    processes, ends = [], {}
    for attempt in (1, 2):
        ends[attempt], theirs = FORK.Pipe(duplex=False)
        words = (storage, attempt, barrier, draw.uniform(0, 0.004), theirs)
        processes.append(FORK.Process(target=_racer, args=words))
        processes[-1].start()
        theirs.close()
    for process in processes:
        process.join()
    outcomes = {}
    for attempt, end in ends.items():
        try:
            outcomes[attempt] = end.recv()
        except EOFError:
            outcomes[attempt] = FAILED
    wrong += [f"{storage.root}: race {trial}: {line}" for line in judged(storage, outcomes)]


def judged(storage: Storage, outcomes: dict[int, int]) -> list[str]:
    """What is wrong with a race for step 1; empty where nothing is.

    Args:
        outcomes: by attempt, the attempt whose manifest it was handed, or `REFUSED` or `FAILED`.
    """
    folder = step_folder(1)
    try:
        winner = read_manifest(storage, folder).attempt
    except CheckpointError as error:
        return [str(error)]
    wrong = [f"step 1: {line}" for line in verify(storage, folder)]
    for name in (MANIFEST, COMPLETE):
        if f'"attempt": {winner},' not in storage.read(f"{folder}/{name}").decode():
            wrong.append(f"{name} names another attempt than {winner}")
    if outcomes.get(winner) != winner:
        wrong.append(f"attempt {winner} is named by marker and manifest, and was told otherwise: {outcomes}")
    for attempt, outcome in outcomes.items():
        # An earlier attempt that comes late must end; a later one of the same run may go on with what is there.
        if attempt != winner and outcome != REFUSED and not (outcome == winner < attempt):
            wrong.append(f"attempt {attempt} lost to {winner} and was told otherwise: {outcomes}")
    return wrong


def _racer(storage: Storage, attempt: int, barrier: Any, pause: float, said: Connection) -> None:
    torch.set_num_threads(1)
    barrier.wait()
    time.sleep(pause)
    try:
        said.send(_save(storage, 1, attempt, ALONE, lambda value: [value]).attempt)
    except LostRace:
        said.send(REFUSED)
    except EcellmError:
        said.send(FAILED)
    os._exit(0)
