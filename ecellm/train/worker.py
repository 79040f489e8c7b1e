"""One rank: model, engine and data put together, then the loop. With Ray this is what every worker runs.

The one decision: an end that all ranks agreed on is returned, so that Ray sees a group that finished; a trouble of one
rank is told to the board first and then raised, so that Ray replaces the group.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import tempfile
import threading
import warnings
from typing import Any

import torch

from ecellm.config.schema import Run
from ecellm.data.microsteps import Layout
from ecellm.data.shards import TokenSet, load_tokens
from ecellm.errors import EcellmError
from ecellm.model import attention as varlen
from ecellm.model.base import base_folder
from ecellm.model.load import load_config, load_model, load_tokenizer, pick_attention, pick_dtype
from ecellm.records import World
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage
from ecellm.train.checks import check_model
from ecellm.train.engine import Engine
from ecellm.train.keeping import Keeper, position_of, side_files
from ecellm.train.loop import Hooks, Job, fit
from ecellm.train.lora import add_adapters
from ecellm.train.loss import piece_tokens
from ecellm.train.progress import Status

BEAT_S = 1.0


def run_rank(run: Run, world: World, hooks: Hooks, given: Run | None = None) -> EcellmError | None:
    """Train as one rank. Returns what all ranks ended with (see `loop.fit`).

    Args:
        run: with `out` and the base folder as this process finds them.
        given: the run as its file says it, for what checkpoints say of themselves; None: the same.

    Raises:
        EcellmError: this rank's own trouble.
    """
    torch.set_num_threads(run.cluster.cpus_per_worker)
    _quieten()
    storage = open_storage(run.out, run.storage)
    device = torch.device("cuda", world.local_rank) if run.cluster.gpus_per_worker else torch.device("cpu")
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    # Told, rather than found out with a warning by DeepSpeed, which other libraries import as well.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    base = base_folder(run, storage)
    dtype = pick_dtype(run.model, device)
    config = load_config(base, trust_remote_code=run.model.trust_remote_code)
    packed = run.train.packing and not config.is_encoder_decoder
    attention, why = _attention(run, device, packed=packed)
    if world.rank == 0:
        rows = "packed" if packed else "padded"
        hooks.say(f"attention: {attention} ({why}); {rows} rows; {dtype}, {world.size} x {device.type}")
    tokenizer = load_tokenizer(base, trust_remote_code=run.model.trust_remote_code)
    engine = _engine(run, world, device, base, dtype, attention)
    vocabulary, pad_id = int(config.get_text_config().vocab_size), int(tokenizer.pad_token_id)
    encoder_decoder = bool(config.is_encoder_decoder)
    check_model(
        engine, packed=packed, encoder_decoder=encoder_decoder, vocabulary=vocabulary, pad_id=pad_id,
        say=hooks.say if world.rank == 0 else _silent,
    )  # fmt: skip
    train, val = (_tokens(storage, split) for split in ("train", "val"))
    job = Job(
        run=run, storage=storage, engine=engine, train=train, val=val, hooks=hooks,
        layout=layout_of(run, encoder_decoder=encoder_decoder, pad_id=pad_id, vocabulary=vocabulary),
        keeper=Keeper(
            run=given or run, storage=storage, position=position_of(run, train), attempt=hooks.attempt, dtype=dtype,
            side=side_files(base, config, storage, dtype) if world.rank == 0 else {}, say=hooks.say,
        ),
    )  # fmt: skip
    return fit(job)


def _silent(text: str) -> None:
    """What ranks other than the first say."""


def layout_of(run: Run, *, encoder_decoder: bool, pad_id: int, vocabulary: int) -> Layout:
    """How this run lays out its batches."""
    train = run.train
    room = train.pack_tokens or train.micro_batch_size * run.prepare.max_length
    return Layout(
        encoder_decoder=encoder_decoder, pad_id=pad_id, micro_batch_size=train.micro_batch_size,
        pack_tokens=room if train.packing and not encoder_decoder else 0, weighting=train.weighting,
        prompt_loss_weight=train.prompt_loss_weight, piece_tokens=piece_tokens(vocabulary),
    )  # fmt: skip


def _attention(run: Run, device: torch.device, *, packed: bool) -> tuple[str, str]:
    """(attention implementation, why)."""
    chosen, why = pick_attention(run.model, device)
    if packed and run.model.attention == "auto" and chosen == "sdpa":
        chosen = varlen.VARLEN
    if chosen == varlen.VARLEN:
        varlen.register()
    return chosen, why


def _engine(run: Run, world: World, device: torch.device, base: str, dtype: str, attention: str) -> Engine:
    # Adapters begin at random and must be the same on every rank.
    torch.manual_seed(run.seed)
    if run.train.engine == "plain":
        from ecellm.train.plain import PlainEngine

        module = load_model(base, run.model, dtype=torch.float32, attention=attention)
        return PlainEngine(_adapted(module, run), run, device, autocast=dtype == "bfloat16")
    with contextlib.redirect_stdout(io.StringIO()):  # DeepSpeed prints what it has compiled
        from ecellm.train.zero3 import Zero3Engine, partition_while_loading

    bf16 = dtype == "bfloat16"
    kept = partition_while_loading(run, gpu=device.type == "cuda", bf16=bf16)
    module = load_model(base, run.model, dtype=getattr(torch, dtype), attention=attention)
    engine = Zero3Engine(_adapted(module, run), run, world, device, bf16=bf16)
    del kept  # transformers looks for it, weakly, while it loads
    return engine


def _adapted(module: Any, run: Run) -> Any:
    return add_adapters(module, run.model.lora) if run.model.lora else module


def _tokens(storage: Storage, split: str) -> TokenSet:
    return load_tokens(storage, split, os.path.join(tempfile.gettempdir(), f"ecellm-tokens-{os.getuid()}"))


def _quieten() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "DeepSpeed", "deepspeed", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


class RayHooks:
    """A rank's line to the board, an actor of the driver's."""

    def __init__(self, board: Any, run: Run, world: World, attempt: int) -> None:
        self.attempt = attempt
        self._board, self._world = board, world
        self._kill_after = run.train.rehearse_failure_at if attempt == 1 and world.rank == world.size - 1 else 0
        self._stop = threading.Event()
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)
        self._pulse.start()

    def wants_stop(self) -> bool:
        return self._stop.is_set()

    def update(self, status: Status) -> None:
        self._board.update.remote(status)

    def say(self, text: str) -> None:
        self._board.say.remote(text)

    def begin(self, step: int) -> None:
        if step and self._world.rank == 0:
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

        while not self._over.wait(BEAT_S):
            try:
                if ray.get(self._board.beat.remote()):
                    self._stop.set()
            except ray.exceptions.RayError:
                return  # the driver has gone; Ray ends this worker too


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
    told: list[Any] = [None]
    if world.rank == 0:
        told = [(ray.get(board.begin.remote()), ray.get(board.failure.remote()))]
    dist.broadcast_object_list(told, src=0)
    attempt, failure = told[0]
    if failure is not None:
        return
    hooks = RayHooks(board, run, world, attempt)
    try:
        outcome = run_rank(run, world, hooks, given)
        if outcome is not None and world.rank == 0:
            ray.get(board.fail.remote(world.rank, outcome))
    except EcellmError as error:
        ray.get(board.fail.remote(world.rank, error))
        raise
    finally:
        hooks.close()
