"""The training loop of one rank: steps from the order of samples, metrics, validation, checkpoints, stopping.

It knows no DeepSpeed and no Ray: an `Engine` and `Hooks` stand for them. The one decision: what all ranks must agree
on (loss, an order to stop, a broken number) travels in the one small sum that every step makes anyway, so ranks end
together and the caller gets that end as a value. An exception here is one rank's own trouble.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ecellm.config.schema import Run
from ecellm.data.microsteps import Layout
from ecellm.data.order import batch_at, steps_per_epoch
from ecellm.data.shards import TokenSet
from ecellm.errors import ConfigError, DataError, EcellmError, Stopped
from ecellm.storage.base import Storage
from ecellm.train.board import CHECKPOINT, RESUME, Order, Status
from ecellm.train.compute import Arithmetic, memory_bytes
from ecellm.train.engine import Engine
from ecellm.train.keeping import Keeper
from ecellm.train.metrics import Metrics
from ecellm.train.profile import Profile
from ecellm.train.schedule import learning_rate, total_steps
from ecellm.train.spikes import Spikes


class Moved(EcellmError):
    """Saved, to go on at once with other workers. Never shown to anybody."""


class Hooks(Protocol):
    """What surrounds a rank: Ray, or this process alone."""

    attempt: int

    def order(self) -> Order:
        """What somebody asked this rank to do."""

    def at(self, step: int, phase: str) -> None:
        """Where this rank is, for whoever looks for one that hangs."""

    def update(self, status: Status) -> None:
        """Rank 0's progress, for whoever watches."""

    def say(self, text: str) -> None:
        """A line for people."""

    def begin(self, step: int) -> None:
        """This attempt goes on after `step`, 0 at the very beginning."""

    def after_step(self, step: int) -> None:
        """Step `step` is done, and its checkpoint on its way."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a rank trains, with what."""

    run: Run
    storage: Storage
    engine: Engine
    train: TokenSet
    val: TokenSet
    layout: Layout
    hooks: Hooks
    keeper: Keeper
    arithmetic: Arithmetic

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        train = self.run.train
        return total_steps(steps_per_epoch(self.train.n, train.batch_size), train.epochs, train.max_steps)


@dataclass(frozen=True)
class _Step:
    """What one optimizer step gave, over all ranks."""

    loss: float
    norm: float
    tokens: int
    waited: float
    """Seconds that a rank needed to lay out its batches, on average."""
    memory: tuple[int, ...]
    """Most bytes that each rank has had."""
    order: Order


def fit(job: Job) -> EcellmError | None:
    """Train until the last step, an order to leave or a broken number.

    Returns:
        None when done; else what all ranks agreed to end with: `Stopped` or `Moved` with the state saved, a
        `DataError`, a `ConfigError`.

    Raises:
        CheckpointError: the checkpoints in OUT belong to other settings, or a newer attempt has taken over.
        StorageError: OUT cannot be written.
    """
    job.hooks.at(0, RESUME)
    started = job.keeper.resume(job.engine)
    if started > job.total:
        return ConfigError(
            f"{job.storage.root} holds a checkpoint of step {started}",
            expected=f"at most step {job.total}, where this run ends",
            mend="raise train.max_steps or train.epochs, or give the shorter run another out",
        )
    job.hooks.begin(started)
    if job.engine.world.rank:
        return _steps(job, started, None)
    with Metrics(job.run, job.storage, started, job.hooks.attempt, job.hooks.say) as metrics:
        return _steps(job, started, metrics)


def _steps(job: Job, started: int, metrics: Metrics | None) -> EcellmError | None:
    run, total = job.run, job.total
    per_epoch = steps_per_epoch(job.train.n, run.train.batch_size)
    every = run.train.evaluate_every or per_epoch
    tell = _Telling(job, started, metrics) if metrics else None
    name = f"attempt-{job.hooks.attempt:05d}-rank-{job.engine.world.rank:05d}"
    with Profile(job.storage, run.train.profile_steps if metrics else 0, name, job.hooks.say) as profile:
        for index in range(started, total):
            step, began = index + 1, time.perf_counter()
            rate = learning_rate(index, total, run.train.learning_rate, run.train.warmup_ratio)
            outcome = _optimizer_step(job, index, rate)
            if isinstance(outcome, EcellmError):
                job.hooks.at(step, CHECKPOINT)
                job.keeper.collect(wait=True)
                return outcome
            seconds = time.perf_counter() - began
            due = step % every == 0 or step == total
            val_loss = validation_loss(job, step) if due and job.val.n else None
            if tell and (step % run.train.log_every == 0 or due):
                tell.step(step, step / per_epoch, rate, seconds, outcome, val_loss)
            leaving = outcome.order > Order.GO and step < total
            tried = due and run.probe.rows > 0  # on workers beside these, from this checkpoint
            if step % run.checkpoint.every == 0 or step == total or leaving or tried:
                job.hooks.at(step, CHECKPOINT)
                if metrics:  # first: a run that goes on from this checkpoint must find the lines up to it
                    flushing = time.perf_counter()
                    metrics.flush()
                    job.keeper.stall += time.perf_counter() - flushing
                job.keeper.save(job.engine, step, wait=step == total or leaving)
            if leaving:
                return _left(outcome.order, step, total)
            profile.step()
            job.hooks.after_step(step)
    return None


def _left(order: Order, step: int, total: int) -> EcellmError:
    if order is Order.MOVE:
        return Moved(f"saved after step {step}")
    return Stopped(f"stopped after step {step} of {total}, state saved", mend="run the same command to go on")


class _Telling:
    """Rank 0's lines: metrics, progress, what leaps out."""

    def __init__(self, job: Job, started: int, metrics: Metrics) -> None:
        self._job, self._metrics = job, metrics
        self._spikes = {"loss": Spikes("the loss"), "grad_norm": Spikes("the gradient's norm")}
        self._status = Status(step=started, total=job.total)

    def step(
        self, step: int, epoch: float, rate: float, seconds: float, outcome: _Step, val_loss: float | None
    ) -> None:
        job = self._job
        speed = outcome.tokens / seconds
        line: dict[str, object] = {
            "step": step, "epoch": epoch, "loss": outcome.loss, "grad_norm": outcome.norm, "lr": rate,
            "tokens": outcome.tokens, "tokens_per_second": speed,
            "mfu": job.arithmetic.utilisation(speed, job.engine.world.size), "seconds": seconds,
            "data_wait": outcome.waited, "checkpoint_stall": job.keeper.take_stall(),
            "memory_bytes": max(outcome.memory), "memory_bytes_by_rank": list(outcome.memory),
            "workers": job.engine.world.size, "attempt": job.hooks.attempt,
        }  # fmt: skip
        for name, value in (("loss", outcome.loss), ("grad_norm", outcome.norm)):
            if leap := self._spikes[name].see(step, value):
                line[f"{name}_spike"] = 1
                job.hooks.say(leap)
        self._metrics.add(line if val_loss is None else {**line, "val_loss": val_loss})
        self._status = Status(
            step=step, total=job.total, epoch=epoch, loss=outcome.loss, tokens_per_second=speed,
            val_loss=self._status.val_loss if val_loss is None else val_loss,
        )  # fmt: skip
        job.hooks.update(self._status)


def _optimizer_step(job: Job, index: int, rate: float) -> _Step | EcellmError:
    engine, tokens, rank = job.engine, job.train, job.engine.world.rank
    job.hooks.at(index + 1, "data")
    numbers = batch_at(tokens.fingerprint, job.run.seed, tokens.n, job.run.train.batch_size, index)
    # Dropout is a function of the step as well, so that a run that goes on draws what it would have drawn.
    torch.manual_seed(_seed(job.run.seed, index, rank))
    began = time.perf_counter()
    dealt = job.layout.deal(tokens, numbers, engine.world.size)
    weights = job.layout.weights(tokens, numbers)
    batches = job.layout.micro_steps(tokens, numbers, engine.world, dealt, weights)
    waited = time.perf_counter() - began
    job.hooks.at(index + 1, "forward and backward")
    losses = torch.stack(engine.forward_backward(batches)).double().cpu()
    whole = bool(torch.isfinite(losses).all())
    memory = [0.0] * engine.world.size
    memory[rank] = float(memory_bytes(engine.device))
    order = job.hooks.order()
    job.hooks.at(index + 1, "sum over ranks")
    stopping, moving = order is Order.STOP, order is Order.MOVE
    told = engine.sums([float(losses.sum()), float(not whole), float(stopping), float(moving), waited, *memory])
    if told[1] or not math.isfinite(told[0]):
        mine = zip(dealt[rank], losses, strict=True)
        bad = [int(i) for group, loss in mine if not math.isfinite(loss) for i in group]
        return _broken(job, index + 1, "loss", bad)
    job.hooks.at(index + 1, "update")
    norm = engine.step(rate)
    if not math.isfinite(norm):
        return _broken(job, index + 1, "gradient", list(numbers))
    count = int((tokens.prompt_lengths[numbers] + tokens.answer_lengths[numbers]).sum())
    agreed = Order.STOP if told[2] else Order.MOVE if told[3] else Order.GO
    return _Step(
        told[0], norm, count, told[4] / engine.world.size, tuple(int(size) for size in told[5:]), agreed
    )  # fmt: skip


def validation_loss(job: Job, step: int = 0) -> float:
    """Mean cross-entropy of an answer token over the whole validation split; the same at any world size."""
    engine, val, layout = job.engine, job.val, job.layout
    loss = 0.0
    for start in range(0, val.n, job.run.train.batch_size):
        job.hooks.at(step, f"validation from {start}")
        numbers = np.arange(start, min(start + job.run.train.batch_size, val.n))
        dealt = layout.deal(val, numbers, engine.world.size)
        weights = np.tile([0.0, 1.0], (len(numbers), 1))  # [samples, 2]
        for batch in layout.micro_steps(val, numbers, engine.world, dealt, weights):
            loss += float(engine.evaluate(batch))
    return engine.sums([loss])[0] / float(val.answer_lengths.sum())


def _broken(job: Job, step: int, what: str, numbers: list[int]) -> DataError:
    """The same error on every rank, naming the samples that any rank found."""
    found = sorted({int(i) for rank in job.engine.gather([int(i) for i in numbers]) for i in rank})
    ids = ", ".join(job.train.ids[i] for i in found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return DataError(
        f"step {step}: the {what} is not a finite number, nothing was updated", found=f"samples {ids}",
        expected="finite numbers", mend="look at these samples; else lower train.learning_rate, or use float32",
    )  # fmt: skip


def _seed(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"dropout\0{seed}\0{step}\0{rank}".encode()).digest()[:7], "little")
