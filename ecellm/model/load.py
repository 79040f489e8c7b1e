"""From a local folder to tokenizer, config and model. It fetches nothing; `model/base.py` does.

The one decision: safetensors only. A pickle runs code when it is opened, so a folder that holds nothing else is
refused with the mend.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from ecellm.config.schema import Model
from ecellm.errors import CheckpointError, ConfigError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
FLASH = {"flash_attention_3": "flash_attn_interface", "flash_attention_2": "flash_attn"}
"""Attention -> the module that must be installed."""


def load_tokenizer(folder: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a folder, with a padding token: its own, else the unknown or the end token.

    Raises:
        CheckpointError: the folder holds no tokenizer.
    """
    if not any(os.path.isfile(os.path.join(folder, name)) for name in TOKENIZER_FILES):
        raise _lacks(
            folder,
            "a tokenizer",
            " or ".join(TOKENIZER_FILES[:3]),
            "copy the tokenizer files of the base model into it",
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise _unreadable(folder, "tokenizer", error) from error
    if tokenizer.eos_token_id is None:
        raise _lacks(folder, "an end token", "eos_token in tokenizer_config.json", "name the end token there")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_config(folder: str, *, trust_remote_code: bool = False) -> Any:
    """The transformers config in a folder. Raises CheckpointError."""
    if not os.path.isfile(os.path.join(folder, "config.json")):
        raise _lacks(folder, "a config", "config.json", "give the folder that save_pretrained or ecellm export wrote")
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise _unreadable(folder, "config.json", error) from error


def load_model(folder: str, settings: Model, *, dtype: Any, attention: str) -> Any:
    """A decoder or, by the config, an encoder-decoder model, in training mode.

    Args:
        folder: config and safetensors.
        settings: `gradient_checkpointing` and `trust_remote_code` are read.
        dtype: torch dtype of the weights.
        attention: as `pick_attention` names it; models without flash attention (T5) take sdpa instead.

    Raises:
        CheckpointError: no config, no safetensors, or weights that do not fit the config.
    """
    config = load_config(folder, trust_remote_code=settings.trust_remote_code)
    _check_weights(folder)
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if config.is_encoder_decoder and attention != "eager":
        attention = "sdpa"
    if attention in FLASH and not _takes_flash(kind, config):
        attention = "sdpa"
    try:
        model = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
            local_files_only=True,
        )
    except (ValueError, OSError, KeyError, RuntimeError, ImportError) as error:
        raise _unreadable(folder, "weights", error) from error
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    return model.train()


def pick_attention(settings: Model, device: Any) -> tuple[str, str]:
    """(attention implementation, why), for the log.

    Raises:
        ConfigError: flash attention is asked for by name and cannot run here.
    """
    if settings.attention in ("flex_attention", "sdpa_varlen", "sdpa", "eager"):
        return settings.attention, "asked for in the run file"
    wanted = tuple(FLASH) if settings.attention == "auto" else (settings.attention,)
    reasons = []
    for name in wanted:
        obstacle = _obstacle(name, settings, str(device))
        if not obstacle:
            return name, "installed" if settings.attention == "auto" else "asked for in the run file"
        reasons.append(obstacle)
    if settings.attention != "auto":
        raise ConfigError(
            f"model.attention: {settings.attention} cannot run here", found=reasons[0],
            expected="a GPU, bfloat16 and the package",
            mend='install it (pip install ".[gpu]"), or say "auto" or "sdpa"',
        )  # fmt: skip
    return "sdpa", "; ".join(dict.fromkeys(reasons))


def pick_dtype(settings: Model, device: Any) -> Literal["float32", "bfloat16"]:
    """`auto`: bfloat16 on a GPU that has it, float32 elsewhere."""
    if settings.dtype != "auto":
        return settings.dtype
    if not str(device).startswith("cuda"):
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def _obstacle(name: str, settings: Model, device: str) -> str:
    """Why flash attention cannot run; "" if it can."""
    if not device.startswith("cuda"):
        return "flash attention needs a GPU"
    if pick_dtype(settings, device) == "float32":
        return "flash attention does not work in float32"
    from transformers.utils import import_utils

    here = {
        "flash_attention_3": import_utils.is_flash_attn_3_available,
        "flash_attention_2": import_utils.is_flash_attn_2_available,
    }
    if not here[name]():
        return f"{FLASH[name]} is not installed"
    if name == "flash_attention_3":
        import torch

        if torch.cuda.get_device_capability(device)[0] != 9:
            return "flash_attention_3 needs a Hopper GPU"
    return ""


def _takes_flash(kind: Any, config: Any) -> bool:
    try:
        return bool(kind._model_mapping[type(config)]._supports_flash_attn)
    except KeyError:  # remote code has its own class
        return True


def _check_weights(folder: str) -> None:
    names = os.listdir(folder)
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    raise CheckpointError(
        f"{folder} holds no safetensors",
        found=", ".join(sorted(pickles)) or "no weights",
        expected="model.safetensors, or its shards with model.safetensors.index.json",
        mend="pickles are not opened: where you trust them, load them with transformers and save_pretrained them"
        if pickles
        else "give a folder that save_pretrained or ecellm export wrote",
    )


def _lacks(folder: str, what: str, expected: str, mend: str) -> CheckpointError:
    found = ", ".join(sorted(os.listdir(folder))[:12]) if os.path.isdir(folder) else "no such folder"
    return CheckpointError(f"{folder} lacks {what}", found=found, expected=expected, mend=mend)


def _unreadable(folder: str, what: str, error: Exception) -> CheckpointError:
    first = str(error).strip().splitlines()[:1]
    return CheckpointError(
        f"{folder}: its {what} cannot be loaded",
        found=f"{type(error).__name__}: {first[0] if first else ''}",
        expected="a whole Hugging Face folder",
        mend="export or download it again; set model.trust_remote_code only for code that you have read",
    )
