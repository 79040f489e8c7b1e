"""Where the base model lies on this machine. `model.base` may be the preset `tiny`, a wheel, a .gguf file, an s3://
prefix, a folder, or a hub name.

The one decision: a base that must be made or converted (tiny, wheel, gguf) is made once into OUT/base, by prepare;
every later stage and every machine reads it from there.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import Any, Literal

from ecellm.config.schema import Run
from ecellm.config.schema import Storage as Settings
from ecellm.errors import CheckpointError, ConfigError
from ecellm.model.wheel import PREFIX, cache_folder, fetch_wheel
from ecellm.stage import MARKER, clear, fingerprint, is_complete, marker, publish
from ecellm.storage.base import Storage, is_remote, join
from ecellm.storage.open import open_storage

FOLDER = "base"
HUB_TIMEOUT_S = 10
READS = 3
"""Times that a file of S3 is fetched before its bytes count as changed."""
FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "*.py")
"""What is fetched of a hub model: no pickles."""

Kind = Literal["tiny", "wheel", "gguf", "s3", "folder", "hub"]


def base_kind(base: str) -> Kind:
    """What sort of base `model.base` names."""
    if base == "tiny":
        return "tiny"
    if base.startswith(PREFIX):
        return "wheel"
    if base.endswith(".gguf"):
        return "gguf"
    if is_remote(base):
        return "s3"
    if os.path.isdir(base) or base.startswith(("/", ".", "~")) or base.count("/") > 1:
        return "folder"
    return "hub"


def base_folder(run: Run, storage: Storage) -> str:
    """A local folder with the base model's config, safetensors and tokenizer.

    Args:
        run: names the base.
        storage: of OUT.

    Raises:
        CheckpointError: the folder does not exist, or prepare has not made OUT/base yet.
        ConfigError: the hub cannot be reached or does not know the name.
        StorageError: S3 cannot be read.
    """
    return folder_of(run.model.base, storage, run.storage, run.model.revision)


def folder_of(base: str, storage: Storage, settings: Settings, revision: str = "main") -> str:
    """The same by name. Raises what `base_folder` raises.

    Args:
        base: as `model.base`.
        storage: of OUT.
        settings: how other places are reached.
        revision: of a hub model.
    """
    kind = base_kind(base)
    if kind in ("tiny", "wheel", "gguf"):
        if marker(storage, FOLDER) is None:
            raise CheckpointError(
                f"{join(storage.root, FOLDER)} holds no base model",
                expected=f"what prepare makes of model.base = {base!r}",
                mend="run: ecellm prepare RUN.toml",
            )  # fmt: skip
        return local_copy(storage, FOLDER)
    if kind == "s3":
        return local_copy(open_storage(base, settings), "")
    if kind == "hub":
        return _from_hub(base, revision)
    folder = os.path.abspath(os.path.expanduser(base))
    if not os.path.isdir(folder):
        raise CheckpointError(
            f"model.base: {base} does not exist",
            expected="a Hugging Face folder",
            mend="check the path in the run file",
        )
    return folder


def placed(run: Run) -> Run:
    """The run with an absolute `out` and base folder, for workers that stand elsewhere in the file system.

    Only for reading and writing through: what a worker writes down about the run comes from the run as given.
    """
    places: dict[str, Any] = {}
    if not is_remote(run.out):
        places["out"] = os.path.abspath(run.out)
    if base_kind(run.model.base) in ("folder", "gguf") and not is_remote(run.model.base):
        base = os.path.abspath(os.path.expanduser(run.model.base))
        places["model"] = run.model.model_copy(update={"base": base})
    return run.model_copy(update=places)


def materialise(run: Run, storage: Storage, texts: Iterable[str] = ()) -> None:
    """Make OUT/base, where the base is one that must be made and it is not there for the same inputs yet.

    Args:
        run: names the base, the tiny sizes and the seed.
        storage: of OUT.
        texts: what the tiny preset's tokenizer learns from.

    Raises:
        ConfigError, CheckpointError, StorageError: as `base_folder`.
    """
    kind = base_kind(run.model.base)
    if kind not in ("tiny", "wheel", "gguf"):
        return
    if kind == "tiny":
        texts = list(texts)
        said = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        made_from = fingerprint("tiny 1", said, run.model.tiny, run.seed, run.prepare.template, run.prepare.max_length)
    else:
        made_from = fingerprint("gguf 1", run.model.base)
    if is_complete(storage, FOLDER, made_from):
        return
    clear(storage, FOLDER)
    from transformers.utils import logging

    logging.disable_progress_bar()  # nothing is fetched from a hub after this
    # Saving a model imports DeepSpeed, which says on standard output which accelerator it has found.
    with tempfile.TemporaryDirectory() as work, redirect_stdout(io.StringIO()):
        _make(kind, run, texts, work)
        files = {}
        for name in sorted(os.listdir(work)):
            files[name] = _digest(os.path.join(work, name))
            storage.upload(os.path.join(work, name), f"{FOLDER}/{name}")
    publish(storage, FOLDER, made_from, base=run.model.base, files=files)


def _make(kind: Kind, run: Run, texts: Iterable[str], work: str) -> None:
    if kind == "tiny":
        from ecellm.model.tiny import make_model, train_tokenizer

        tokenizer = train_tokenizer(texts, run.model.tiny.vocab, run.prepare.template)
        make_model(run.model.tiny, tokenizer, max_length=run.prepare.max_length, seed=run.seed).save_pretrained(work)
        tokenizer.save_pretrained(work)
        return
    source = run.model.base
    if kind == "wheel":
        source = fetch_wheel(source.removeprefix(PREFIX))
    if os.path.isdir(source):
        shutil.copytree(source, work, dirs_exist_ok=True)
        return
    from ecellm.model.gguf import convert_gguf

    if not is_remote(source):
        convert_gguf(os.path.expanduser(source), work)
        return
    root, _, name = source.rpartition("/")
    with tempfile.TemporaryDirectory() as fetched:
        try:
            open_storage(root, run.storage).download(name, os.path.join(fetched, name))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"model.base: {source} does not exist", expected="a .gguf file", mend="check the key"
            ) from error
        convert_gguf(os.path.join(fetched, name), work)


def local_copy(storage: Storage, prefix: str) -> str:
    """A local folder with the objects under `prefix`; those of S3 are fetched once for each state they have.

    Where the marker holds digests (`files`, sha256 in hex by name) they are compared, since S3 checks no download.

    Raises:
        CheckpointError: there are none in S3, or they are not what was written.
    """
    if not is_remote(storage.root):
        return os.path.abspath(join(storage.root, prefix))
    listed = list(storage.list(prefix + "/" if prefix else ""))
    if not listed:
        raise CheckpointError(
            f"{join(storage.root, prefix)} is empty",
            expected="a Hugging Face folder",
            mend="check the prefix in the run file",
        )
    made = marker(storage, prefix) if prefix else None
    digests: dict[str, str] = (made or {}).get("files") or {}
    folder = os.path.join(cache_folder(), "models", fingerprint(storage.root, prefix, listed, made))
    if os.path.isdir(folder):
        return folder
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as work:
        whole = os.path.join(work, "whole")
        for key, _ in listed:
            path = os.path.join(whole, os.path.relpath(key, prefix) if prefix else key)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _fetch(storage, key, path, digests.get(os.path.relpath(key, prefix)) if prefix else None)
        try:
            os.rename(whole, folder)
        except OSError:
            if not os.path.isdir(folder):  # another process was first
                raise
    return folder


def _fetch(storage: Storage, key: str, path: str, digest: str | None) -> None:
    for _ in range(READS):
        storage.download(key, path)
        if digest is None or _digest(path) == digest:
            return
    raise CheckpointError(
        f"{join(storage.root, key)} is not what was written", found=f"sha256 {_digest(path)}",
        expected=f"sha256 {digest}, as its {MARKER} says", mend="run the stage that made it again",
    )  # fmt: skip


def _digest(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_hub(name: str, revision: str) -> str:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_S))
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(HUB_TIMEOUT_S))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[:1]
        raise ConfigError(
            f"model.base: the hub gave no model {name!r} at revision {revision!r}",
            found=f"{type(error).__name__}: {first[0] if first else ''}",
            expected="a hub name that this machine can reach and may read",
            mend="without a hub, set model.base to a folder, an s3:// prefix, a .gguf file, or wheel:NAME",
        ) from error
