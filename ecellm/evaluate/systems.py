"""The models that an evaluation asks: where each lies, what names its content, how its prompts are made.

Not the models themselves: those live in the pool's actors. The one decision to know: the tuned model must bring its own
`prompt.json` and the tokenizer that it names, or nothing is asked (exit 4); the untuned base gets the same policy with
its own tokenizer, so that both are asked the same words.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ecellm import prompt
from ecellm.config.schema import Run
from ecellm.data.encode import Encoder
from ecellm.errors import CheckpointError
from ecellm.model.base import base_folder
from ecellm.model.load import load_config, load_tokenizer
from ecellm.storage.base import Storage, is_remote, join
from ecellm.tasks.template import SEPARATOR

MODEL, POLICY = "model", "prompt.json"
_CHUNK = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One model to ask. `folder` is a local folder, or an s3:// prefix that each actor fetches."""

    name: str
    folder: str
    digest: str
    separator: str
    encoder: Any
    """`Encoder`: rows to prompt ids."""


def open_system(name: str, run: Run, storage: Storage) -> System:
    """The system `tuned` or `untuned` of a run.

    Raises CheckpointError where the model folder is missing, has no prompt.json, or does not fit its tokenizer.
    """
    policy = _policy(storage, MODEL if name == "tuned" else _policy_folder(storage))
    folder = join(storage.root, MODEL) if name == "tuned" else base_folder(run, storage)
    with small_files(folder, run) as local:
        tokenizer = load_tokenizer(local)
        if name == "tuned":
            prompt.check(policy, tokenizer, folder)
        encoder_decoder = bool(getattr(load_config(local), "is_encoder_decoder", False))
    return System(
        name=name,
        folder=folder,
        digest=model_digest(folder, run),
        separator=SEPARATOR[policy.template],
        encoder=Encoder(tokenizer, policy, encoder_decoder=encoder_decoder),
    )


def _policy_folder(storage: Storage) -> str:
    return MODEL if storage.exists(f"{MODEL}/{POLICY}") else ""


def _policy(storage: Storage, folder: str) -> prompt.PromptPolicy:
    key = f"{folder}/{POLICY}".lstrip("/")
    try:
        return prompt.read_policy(storage.read(key), join(storage.root, key))
    except FileNotFoundError as fault:
        if folder == MODEL and not any(True for _ in storage.list(f"{MODEL}/")):
            found, mend = "no model folder", "train first: ecellm train RUN.toml"
        else:
            found, mend = (
                f"no {POLICY}",
                "export the model again (ecellm export), or prepare and train with this version",
            )
        raise CheckpointError(
            f"{join(storage.root, key)}: how its prompts are made is not known",
            found=found,
            expected=f"{POLICY} beside the model that was trained with it",
            mend=mend,
        ) from fault


def model_digest(folder: str, run: Run) -> str:
    """SHA-256 over names and bytes of every file that decides an answer: config, weights, tokenizer."""
    storage = _open(folder, run)
    total = hashlib.sha256()
    for key, size in storage.list(""):
        if not key.endswith((".json", ".safetensors", ".model", ".txt", ".bin")) or key.endswith("COMPLETE"):
            continue
        total.update(f"{key}\n{size}\n".encode())
        for start in range(0, size, _CHUNK):
            total.update(storage.read(key, start, min(_CHUNK, size - start)))
    return total.hexdigest()


@contextmanager
def small_files(folder: str, run: Run) -> Iterator[str]:
    """A local folder with everything but the weights of a model folder: itself, or a copy of what lies in S3."""
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ecellm-") as local:
        fetch(folder, run, local, weights=False)
        yield local


def fetch(folder: str, run: Run, local: str, *, weights: bool = True) -> None:
    """Copy a model folder from S3 to a local folder."""
    storage = _open(folder, run)
    for key, _ in storage.list(""):
        if not weights and key.endswith((".safetensors", ".bin")):
            continue
        path = os.path.join(local, *key.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        storage.download(key, path)


def _open(folder: str, run: Run) -> Storage:
    from ecellm.storage.open import open_storage

    return open_storage(folder, run.storage)
