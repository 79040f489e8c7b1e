"""The models that an evaluation asks: where each lies, what names its content, how its prompts are made.

Not the models themselves: those live in the pool's actors. The one decision to know: the tuned model must bring its own
`prompt.json` and the tokenizer that it names, or nothing is asked (exit 4); the untuned base is asked under the same
policy, so that both get the same words.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from ecellm import prompt
from ecellm.config.schema import Run
from ecellm.data.encode import Encoder
from ecellm.errors import CheckpointError
from ecellm.model.base import base_folder, local_copy
from ecellm.model.load import load_tokenizer
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.tasks.template import SEPARATOR

MODEL = "model"
_CHUNK = 16 << 20
_ANSWERS_DEPEND_ON = (".json", ".safetensors", ".model", ".txt", ".jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One model to ask. `digest` names its content; `family` is `t5` for encoder-decoders, else empty."""

    name: str
    digest: str
    separator: str
    family: str
    encoder: Encoder


def open_system(name: str, run: Run, storage: Storage) -> System:
    """The system `tuned` or `untuned` of a run.

    Raises CheckpointError where the model folder is missing, has no prompt.json, or does not fit its tokenizer.
    """
    policy = _policy(storage, tuned=name == "tuned")
    folder = system_folder(name, run)
    tokenizer: Any = load_tokenizer(folder, trust_remote_code=run.model.trust_remote_code)
    if name == "tuned":
        prompt.check(policy, tokenizer, join(storage.root, MODEL))
    return System(
        name=name,
        digest=model_digest(folder),
        separator=SEPARATOR[policy.template],
        family="t5" if policy.encoder_decoder else "",
        encoder=Encoder(tokenizer, policy, encoder_decoder=policy.encoder_decoder),
    )


def system_folder(name: str, run: Run) -> str:
    """A local folder with the model, on whichever machine this runs; fetched from S3 or a hub where it lies there."""
    storage = open_storage(run.out, run.storage)
    return local_copy(storage, MODEL) if name == "tuned" else base_folder(run, storage)


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


def _policy(storage: Storage, *, tuned: bool) -> prompt.PromptPolicy:
    """The tuned model's policy; for the base alone also the one that prepare wrote."""
    keys = [f"{MODEL}/{prompt.FILE}"] + ([] if tuned else [prompt.FILE])
    for key in keys:
        try:
            return prompt.read_policy(storage.read(key), join(storage.root, key))
        except FileNotFoundError:
            continue
    there = next(iter(storage.list(f"{MODEL}/")), None) is not None
    raise CheckpointError(
        f"{join(storage.root, keys[0])}: how the model's prompts are made is not known",
        found=f"a model folder without {prompt.FILE}" if there else "no model folder",
        expected=f"{prompt.FILE} beside the model, from the run that trained it",
        mend="export the model again from its checkpoint" if there else "run: ecellm train RUN.toml",
    )
