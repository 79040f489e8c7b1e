"""Trained adapters as peft reads them, apart from the base model: small, and of use with any copy of that base.

Merging is `export`'s. The one decision: the config is written from what was trained (rank, scale, modules), never from
a run file that may have changed since.
"""

from __future__ import annotations

import json
import os
import tempfile

import torch
from safetensors.torch import save_file

from ecellm.checkpoint.export import filled, side_files_of
from ecellm.checkpoint.restore import read_manifest
from ecellm.checkpoint.slices import SliceReader
from ecellm.config.schema import Storage as Settings
from ecellm.errors import CheckpointError
from ecellm.storage.open import open_storage

NOT_OURS = ("config.json", "generation_config.json")
"""Files of the whole model."""


def export_adapter(checkpoint: str, folder: str, settings: Settings, base: str) -> None:
    """Write adapter_model.safetensors, adapter_config.json and the tokenizer's files.

    Args:
        checkpoint: `OUT/checkpoints/step-…`, a folder or s3:// prefix.
        folder: where to write, a folder or s3:// prefix.
        base: what the config names as the base model.

    Raises:
        CheckpointError: the checkpoint holds no adapters, or is not whole.
        StorageError: either side cannot be reached.
    """
    source, target = open_storage(checkpoint, settings), open_storage(folder, settings)
    manifest = read_manifest(source, "")
    lora = manifest.lora
    if not lora:
        raise CheckpointError(f"{checkpoint} holds no adapters", mend="use `ecellm export` for a whole model")
    read, dtype = SliceReader(source, "", manifest, cache_bytes=0), getattr(torch, manifest.dtype)
    values = filled(manifest, read, manifest.parameters, dtype)
    tensors = {name.replace(".default.weight", ".weight"): value for name, value in values.items()}
    config = {
        "peft_type": "LORA", "task_type": lora["task_type"], "base_model_name_or_path": base, "r": lora["rank"],
        "lora_alpha": lora["alpha"], "lora_dropout": lora["dropout"], "target_modules": lora["targets"],
        "bias": "none", "inference_mode": True,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ecellm-export-") as temporary:
        path = os.path.join(temporary, "adapter_model.safetensors")
        save_file(tensors, path, metadata={"format": "pt"})
        target.upload(path, "adapter_model.safetensors")
    target.write("adapter_config.json", (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())
    for name, data in side_files_of(source, manifest).items():
        if name not in NOT_OURS:
            target.write(name, data)
