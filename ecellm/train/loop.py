"""The training loop of one rank: steps from the order of samples, metrics, validation, checkpoints, stopping.

It knows no DeepSpeed and no Ray: an `Engine` and `Hooks` stand for them. The one decision: what all ranks must agree
on (loss, a wish to stop, a broken number) travels in the one small sum that every step makes anyway, so ranks end
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
from ecellm.train.compute import memory_bytes, peak_flops, utilisation
from ecellm.train.engine import Engine
from ecellm.train.keeping import Keeper
from ecellm.train.metrics import Metrics
from ecellm.train.progress import Status
from ecellm.train.schedule import learning_rate, total_steps


class Hooks(Protocol):
    """What surrounds a rank: Ray, or this process alone."""

    attempt: int

    def wants_stop(self) -> bool:
        """Whether somebody asked this rank to save and stop."""

    def update(self, status: Status) -> None:
        """Rank 0's progress, for whoever watches."""

    def say(self, text: str) -> None:
        """A line for people."""

    def begin(self, step: int) -> None:
        """This attempt goes on after `step`, 0 at the very beginning."""

    def after_step(self, step: int) -> None:
        """Step `step` and its checkpoint are done."""


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

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        train = self.run.train
        return total_steps(steps_per_epoch(self.train.n, train.batch_size), train.epochs, train.max_steps)


@dataclass(frozen=True)
class _Step:
    """What one optimizer step gave, summed over ranks."""

    loss: float
    norm: float
    tokens: int
    waited: float
    stop: bool


def fit(job: Job) -> EcellmError | None:
    """Train until the last step, a stop or a broken number.

    Returns:
        None when done; else what all ranks agreed to end with: `Stopped` with the state saved, or a `DataError`.

    Raises:
        CheckpointError: the checkpoints in OUT belong to other settings.
        StorageError: OUT cannot be written.
    """
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
    with Metrics(job.storage, started, job.hooks.attempt) as metrics:
        return _steps(job, started, metrics)


def _steps(job: Job, started: int, metrics: Metrics | None) -> EcellmError | None:
    run, engine, total = job.run, job.engine, job.total
    per_epoch = steps_per_epoch(job.train.n, run.train.batch_size)
    every = run.train.evaluate_every or per_epoch
    peak = peak_flops(engine.device) if metrics else None
    parameters = sum(parameter.numel for parameter in engine.parameters()[0])
    status = Status(step=started, total=total)
    saved = started
    for index in range(started, total):
        step, began = index + 1, time.perf_counter()
        rate = learning_rate(index, total, run.train.learning_rate, run.train.warmup_ratio)
        outcome = _optimizer_step(job, index, rate)
        if isinstance(outcome, EcellmError):
            return outcome
        seconds = time.perf_counter() - began
        due = step % every == 0 or step == total
        val_loss = validation_loss(job) if due and job.val.n else None
        if metrics and (step % run.train.log_every == 0 or due):
            speed = outcome.tokens / seconds
            epoch = step / per_epoch
            line = {
                "step": step, "epoch": epoch, "loss": outcome.loss, "grad_norm": outcome.norm, "lr": rate,
                "tokens": outcome.tokens, "tokens_per_second": speed,
                "mfu": utilisation(parameters, speed, peak, engine.world.size), "seconds": seconds,
                "data_wait": outcome.waited, "memory_bytes": memory_bytes(engine.device),
                "workers": engine.world.size, "attempt": job.hooks.attempt,
            }  # fmt: skip
            metrics.add(line if val_loss is None else {**line, "val_loss": val_loss})
            status = Status(
                step=step, total=total, epoch=epoch, loss=outcome.loss, tokens_per_second=speed,
                val_loss=status.val_loss if val_loss is None else val_loss,
            )  # fmt: skip
            job.hooks.update(status)
        if step % run.checkpoint.every == 0 or step == total or outcome.stop:
            if metrics:
                metrics.flush()
            job.keeper.save(engine, step)
            saved = step
        if outcome.stop and step < total:
            return Stopped(f"stopped after step {saved} of {total}, state saved", mend="run the same command to go on")
        job.hooks.after_step(step)
    return None


def _optimizer_step(job: Job, index: int, rate: float) -> _Step | EcellmError:
    engine, tokens = job.engine, job.train
    numbers = batch_at(tokens.fingerprint, job.run.seed, tokens.n, job.run.train.batch_size, index)
    # Dropout is a function of the step as well, so that a run that goes on draws what it would have drawn.
    torch.manual_seed(_seed(job.run.seed, index, engine.world.rank))
    began = time.perf_counter()
    dealt = job.layout.deal(tokens, numbers, engine.world.size)
    weights = job.layout.weights(tokens, numbers)
    batches = job.layout.micro_steps(tokens, numbers, engine.world, dealt, weights)
    waited = time.perf_counter() - began
    losses = torch.stack(engine.forward_backward(batches)).double().cpu()
    whole = bool(torch.isfinite(losses).all())
    told = engine.sums([float(losses.sum()), float(not whole), float(job.hooks.wants_stop())])
    if told[1] or not math.isfinite(told[0]):
        mine = zip(dealt[engine.world.rank], losses, strict=True)
        bad = [int(i) for group, loss in mine if not math.isfinite(loss) for i in group]
        return _broken(job, index + 1, "loss", bad)
    norm = engine.step(rate)
    if not math.isfinite(norm):
        return _broken(job, index + 1, "gradient", list(numbers))
    count = int((tokens.prompt_lengths[numbers] + tokens.answer_lengths[numbers]).sum())
    return _Step(told[0], norm, count, waited, told[2] > 0)


def validation_loss(job: Job) -> float:
    """Mean cross-entropy of an answer token over the whole validation split; the same at any world size."""
    engine, val, layout = job.engine, job.val, job.layout
    loss = 0.0
    for start in range(0, val.n, job.run.train.batch_size):
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
