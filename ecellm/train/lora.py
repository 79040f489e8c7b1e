"""Low-rank adapters around a base model (Hu et al. 2021), through peft. Only they are trained and saved.

The one decision: an output head that shares its weights with the embeddings gets no adapter, since merging it would
change the embeddings too.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ecellm.config.schema import Lora
from ecellm.errors import ConfigError

TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2", "lm_head"),
    "t5": ("q", "k", "v", "o", "wi_0", "wi_1", "wo", "lm_head"),
}
"""Adapted modules by architecture (spec C.2; Phi-2 by its names in transformers)."""
TARGETS["mistral"] = TARGETS["llama"]


def add_adapters(module: Any, lora: Lora) -> nn.Module:
    """The model with adapters in it; everything else is frozen.

    Raises:
        ConfigError: the model has no module of these names, or no table for its architecture.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    kind = module.config.model_type
    wanted = lora.targets or TARGETS.get(kind, ())
    names = {name.rpartition(".")[2] for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    tied = bool(getattr(module.config, "tie_word_embeddings", False))
    targets = [name for name in wanted if name in names and not (name == "lm_head" and tied)]
    if not targets:
        raise ConfigError(
            "model.lora.targets: nothing to adapt", found=", ".join(wanted) or f"no table for {kind}",
            expected=f"some of: {', '.join(sorted(names))}", mend="name the modules in model.lora.targets",
        )  # fmt: skip
    task = TaskType.SEQ_2_SEQ_LM if module.config.is_encoder_decoder else TaskType.CAUSAL_LM
    if module.is_gradient_checkpointing:
        module.enable_input_require_grads()
    settings = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", task_type=task,
        target_modules=targets,
    )  # fmt: skip
    adapted = get_peft_model(module, settings)
    assert isinstance(adapted, nn.Module)
    return adapted


def adapter_facts(module: Any, lora: Lora) -> dict[str, Any]:
    """What was trained: rank, alpha, dropout, the modules' names, and peft's kind of task."""
    settings = module.peft_config["default"]
    return {
        "rank": lora.rank, "alpha": lora.alpha, "dropout": lora.dropout, "targets": sorted(settings.target_modules),
        "task_type": str(settings.task_type).rpartition(".")[2],
    }  # fmt: skip
