"""What Ray Train runs on every worker of a group: one rank, with its line to the board.

The one decision: an end that all ranks agreed on is returned, so that Ray sees a group that finished; a trouble of one
rank is told to the board first and then raised, so that Ray replaces the group.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from ecellm.config.schema import Run
from ecellm.errors import EcellmError
from ecellm.nodes import same_code
from ecellm.records import World
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage
from ecellm.train import attempts
from ecellm.train.board import START, Order, Status
from ecellm.train.loop import Moved
from ecellm.train.worker import run_rank

ABORTED = 70
"""Exit code of a worker that was told to leave a group that hangs (EX_SOFTWARE)."""


class RayHooks:
    """A rank's line to the board, an actor of the driver's."""

    def __init__(self, board: Any, run: Run, world: World, attempt: int) -> None:
        self.attempt = attempt
        self._board, self._run, self._world = board, run, world
        self._kill_after = run.train.rehearse_failure_at if attempt == 1 and world.rank == world.size - 1 else 0
        self._order, self._at = Order.GO, (0, START)
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)
        self._pulse.start()

    @property
    def step(self) -> int:
        """The step that this rank is at."""
        return self._at[0]

    def order(self) -> Order:
        return self._order

    def at(self, step: int, phase: str) -> None:
        self._at = (step, phase)

    def update(self, status: Status) -> None:
        self._board.update.remote(status)

    def say(self, text: str) -> None:
        self._board.say.remote(text)

    def begin(self, step: int) -> None:
        if self._world.rank == 0:
            with contextlib.suppress(EcellmError):  # a run does not end for the sake of a note about it
                attempts.went_on(open_storage(self._run.out, self._run.storage), self.attempt, step)
            if step:
                self._board.resume.remote(step)

    def after_step(self, step: int) -> None:
        if self._kill_after == step:
            self.say(f"rehearsal: worker {self._world.rank} is killed after step {step}")
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """End the heartbeat."""
        self._over.set()
        self._pulse.join(timeout=10)

    def _beat(self) -> None:
        import ray

        # Some hundred calls a second are no load for an actor; more workers beat more slowly.
        pause = max(1.0, self._world.size / 128)
        while not self._over.wait(pause):
            try:
                self._order = ray.get(self._board.beat.remote(self._world.rank, *self._at))
            except ray.exceptions.RayError:
                return  # the driver has gone; Ray ends this worker too
            if self._order is Order.ABORT:
                self._leave_as_is()

    def _leave_as_is(self) -> None:
        """Say where every thread stands, then end this process: its main thread waits for what will not come."""
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            text = file.read().decode(errors="replace")
        name = f"{attempts.FOLDER}/attempt-{self.attempt:05d}-rank-{self._world.rank:05d}-hang.txt"
        try:
            open_storage(self._run.out, self._run.storage).write(name, text.encode())
        finally:
            os._exit(ABORTED)


def train_on_ray(settings: dict[str, Any]) -> None:
    """What Ray Train runs on every worker: `settings` holds the run as JSON, as given and placed, and the board."""
    import ray
    import ray.train
    import torch.distributed as dist

    given, run = (Run.model_validate_json(settings[name]) for name in ("run", "placed"))
    board = settings["board"]
    context = ray.train.get_context()
    world = World(
        rank=context.get_world_rank(), size=context.get_world_size(), local_rank=context.get_local_rank()
    )  # fmt: skip
    nodes: list[Any] = [None] * world.size
    dist.all_gather_object(nodes, ray.get_runtime_context().get_node_id())
    with _told(board, world):
        same_code(settings["code"])
    storage = open_storage(run.out, run.storage)
    told: list[Any] = [None]
    if world.rank == 0:
        told = [_begin(board, run, storage, nodes)]
    dist.broadcast_object_list(told, src=0)
    if isinstance(told[0], EcellmError):
        raise told[0]
    if told[0] is None:
        return
    with _told(board, world):
        attempts.see(storage, told[0])
    hooks = RayHooks(board, run, world, told[0])
    try:
        _train(run, given, world, hooks, board, storage)
    finally:
        hooks.close()


def _train(run: Run, given: Run, world: World, hooks: RayHooks, board: Any, storage: Storage) -> None:
    """Train as this rank, and say how it ended: to the board what is told there, and beside the attempt."""
    import ray

    try:
        outcome = run_rank(run, world, hooks, given)
        if outcome is not None and world.rank == 0:
            ray.get(board.move.remote() if isinstance(outcome, Moved) else board.fail.remote(world.rank, outcome))
        if world.rank == 0:
            attempts.close(storage, hooks.attempt, outcome.what if outcome else "done", step=hooks.step)
    except Exception as error:  # memory that ran out, a lost connection: told, and raised for Ray to replace the group
        if isinstance(error, EcellmError):
            ray.get(board.fail.remote(world.rank, error))
        attempts.failed(storage, hooks.attempt, error, rank=world.rank, step=hooks.step)
        raise


@contextlib.contextmanager
def _told(board: Any, world: World) -> Iterator[None]:
    """Tell the board of this rank's own trouble before it is raised: Ray passes on the last line of it only."""
    import ray

    try:
        yield
    except EcellmError as error:
        ray.get(board.fail.remote(world.rank, error))
        raise


def _begin(board: Any, run: Run, storage: Storage, nodes: list[str]) -> int | EcellmError | None:
    """The number of this attempt; None where an error stands that trying again does not mend."""
    import ray

    if ray.get(board.failure.remote()) is not None:
        return None
    try:
        number = attempts.begin(
            storage, reached=ray.get(board.reached.remote()), workers=len(nodes), nodes=sorted(set(nodes)),
            engine=run.train.engine, ray=ray.__version__,
        )  # fmt: skip
    except EcellmError as error:
        return error
    ray.get(board.begin.remote(number, dict(enumerate(nodes))))
    return number
