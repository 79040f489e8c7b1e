"""One rank: model, engine and data put together, then the loop. It knows nothing of Ray; `member` does."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
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
from ecellm.train.attempts import Fence
from ecellm.train.checks import check_model
from ecellm.train.compute import arithmetic
from ecellm.train.engine import Engine
from ecellm.train.keeping import Keeper, position_of, side_files
from ecellm.train.loop import Hooks, Job, fit
from ecellm.train.lora import add_adapters
from ecellm.train.loss import piece_tokens


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
    lengths = (train.prompt_lengths + train.answer_lengths).astype(float)
    job = Job(
        run=run, storage=storage, engine=engine, train=train, val=val, hooks=hooks,
        layout=layout_of(run, encoder_decoder=encoder_decoder, pad_id=pad_id, vocabulary=vocabulary),
        arithmetic=arithmetic(
            engine.model(), device, mean_length=float((lengths**2).sum() / lengths.sum()),
            head_share=float(train.answer_lengths.sum() / lengths.sum()),
        ),
        keeper=Keeper(
            run=given or run, storage=storage, position=position_of(run, train), attempt=hooks.attempt, dtype=dtype,
            side=side_files(base, config, storage, dtype) if world.rank == 0 else {},
            say=hooks.say if world.rank == 0 else _silent, fence=Fence(storage, hooks.attempt),
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
    folder = os.path.join(tempfile.gettempdir(), f"ecellm-tokens-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # A folder of that name may have been put there by somebody else: what lies in it is trained on.
    return load_tokens(storage, split, folder if os.stat(folder).st_uid == os.getuid() else "")


def _quieten() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "DeepSpeed", "deepspeed", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
