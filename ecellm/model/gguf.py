"""A .gguf file to a Hugging Face folder, once. Weights are dequantised to float32; nothing stays quantised.

The one decision: the quantisation settings are dropped from the config before saving, because they describe the
file that was read and would make transformers look for it again.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from ecellm.errors import CheckpointError


def convert_gguf(path: str, folder: str) -> None:
    """Write config, safetensors and tokenizer of the model in the .gguf file `path` into `folder`.

    Raises:
        CheckpointError: no such file, or an architecture or quantisation that transformers does not read.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"model.base: {path} does not exist", expected="a .gguf file", mend="check the path")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, name = os.path.split(os.path.abspath(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
        model: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    except (ValueError, KeyError, NotImplementedError, OSError, RuntimeError, struct.error) as error:
        said = str(error).partition("\n")[0]  # may be empty
        raise CheckpointError(
            f"{path} cannot be read as a model",
            found=f"{type(error).__name__}: {said}",
            expected="a .gguf file of an architecture that transformers converts",
            mend="use the model's original safetensors folder",
        ) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
