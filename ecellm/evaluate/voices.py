"""The models that an evaluation asks: where each lies, what names its content, and the engine that runs it.

A voice is what a worker loads; several systems may speak through one (the base with and without worked examples, each
in several decodings). It is plain data, so that it travels to workers, and opens its engine where it is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from ecellm.config.evaluation import NamedModel
from ecellm.config.schema import Run
from ecellm.errors import ConfigError
from ecellm.evaluate.engines.base import Engine
from ecellm.evaluate.log import UNANSWERED, read_log
from ecellm.model.base import base_folder, base_kind, local_copy
from ecellm.storage.base import Storage
from ecellm.storage.open import open_storage

MODEL, ANSWERS = "model", "answers"
BASE = "untuned"
"""Voice of the run's base model."""
_CHUNK = 16 << 20
_ANSWERS_DEPEND_ON = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One model. `digest` names its content, `separator` ends a reply that repeats it."""

    name: str
    digest: str
    separator: str
    engine: str
    folder: str = ""
    """Where a model is taken from instead of the run's own place; for a checkpoint that is tried during training."""


def folder_of(name: str, run: Run) -> str:
    """A local folder with the model `tuned`, `untuned` or one of `evaluate.models`, on whichever machine this runs.

    Raises CheckpointError, ConfigError, StorageError where there is none.
    """
    storage = open_storage(run.out, run.storage)
    if name == "tuned":
        return local_copy(storage, MODEL)
    if name == BASE:
        return base_folder(run, storage)
    named = named_model(name, run)
    if base_kind(named.model) in ("tiny", "wheel", "gguf"):
        raise ConfigError(
            f"evaluate.models: {name} is no model folder", found=named.model,
            expected="a hub name, a folder or an s3:// prefix",
            mend="convert it by an `ecellm prepare` of its own run (model.base), and name that run's OUT/base",
        )  # fmt: skip
    return base_folder(run.model_copy(update={"model": run.model.model_copy(update={"base": named.model})}), storage)


def named_model(name: str, run: Run) -> NamedModel:
    """The entry of `evaluate.models` with this name."""
    return next(model for model in run.evaluate.models if model.name == name)


def digest_of(name: str, run: Run) -> str:
    """What names a voice's content: its files, the engine and the numbers that it computes in; for an endpoint its
    address and the model's name there."""
    named = next((model for model in run.evaluate.models if model.name == name), None)
    if named is not None and named.engine == "openai":
        text = f"{named.endpoint.url}\n{named.endpoint.api}\n{named.model}"
        return hashlib.sha256(text.encode()).hexdigest()
    dtype = run.model.dtype if run.model.dtype != "auto" else "auto/gpu" if run.cluster.gpus_per_worker else "float32"
    engine = run.evaluate.engine if named is None else named.engine
    text = f"{model_digest(folder_of(name, run))}\n{engine}\n{dtype}"
    return hashlib.sha256(text.encode()).hexdigest()


def model_digest(folder: str) -> str:
    """SHA-256 over names and bytes of every file of a local folder that decides an answer."""
    total = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not name.endswith(_ANSWERS_DEPEND_ON) or not os.path.isfile(path):
            continue
        total.update(f"{name}\n{os.path.getsize(path)}\n".encode())
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    return total.hexdigest()


def answers_storage(run: Run) -> Storage:
    """Where the logs of answers lie."""
    return open_storage(run.evaluate.answers or run.out, run.storage)


def log_folder(voice: Voice, run: Run) -> str:
    """The folder of a voice's log. Where several runs share it, the model's content is part of its name."""
    return f"{ANSWERS}/{voice.name}-{voice.digest[:12]}" if run.evaluate.answers else f"{ANSWERS}/{voice.name}"


def open_engine(voice: Voice, run: Run, stopping: Callable[[], bool] = lambda: False) -> Engine:
    """The engine of a voice in this process; an endpoint's looks for a stop itself.

    Raises CheckpointError, ConfigError, StorageError where it cannot be had.
    """
    if voice.engine == "openai":
        return _remote(voice, run, stopping)
    folder = voice.folder or folder_of(voice.name, run)
    gpu = bool(run.cluster.gpus_per_worker)
    if voice.engine == "vllm":
        from ecellm.evaluate.engines.offline import Offline

        rows = run.evaluate.batch_rows
        return Offline(folder, run.model, gpu=gpu, most_rows=rows, separator=voice.separator)
    from ecellm.evaluate.engines.local import Local
    from ecellm.model.generate import Generator

    return Local(
        Generator(
            folder, run.model, "cuda" if gpu else "cpu", separator=voice.separator,
            workers=max(run.evaluate.workers, run.cluster.workers),
            most_tokens=run.evaluate.batch_tokens, most_rows=run.evaluate.batch_rows,
        )
    )  # fmt: skip


def _remote(voice: Voice, run: Run, stopping: Callable[[], bool]) -> Engine:
    from ecellm.evaluate.engines.budget import dollars
    from ecellm.evaluate.engines.endpoint import Remote

    named = named_model(voice.name, run)
    known = read_log(answers_storage(run), log_folder(voice, run)).values()
    struck = {answer.key.partition("/")[0] for answer in known if answer.finish_reason == UNANSWERED}
    bills = [answer.bill for answer in known if answer.bill]
    spent = sum(dollars(named.endpoint, bill["prompt_tokens"], bill["answer_tokens"]) for bill in bills)
    key = os.environ.get(named.endpoint.key_variable, "")
    return Remote(named, key, spent=spent, struck=struck, separator=voice.separator, stopping=stopping)
