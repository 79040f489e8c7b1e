"""BLEURT (Sellam et al. 2020, arXiv 2004.04696): a learnt score of a text against a reference.

Two kinds of model folders: sequence classifiers that transformers knows, and the PyTorch conversions of BLEURT-20
(model type `bleurt`, the paper's lucadiliello/BLEURT-20-D12), whose layers are RemBERT's under other names. The one
decision: the conversions are loaded into transformers' own RemBERT, since the package that came with them does not go
with today's transformers. Their weights may be a pickle; it is read as tensors only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecellm.errors import ConfigError
from ecellm.tasks.base import Floats

_BATCH = 32
_MAX_TOKENS = 512
_KIND = "bleurt"
_RENAMED = (("bleurt.", "rembert."), ("encoder.embedding_projection.", "encoder.embedding_hidden_mapping_in."))


class Bleurt:
    """Callable (predictions, labels) of n texts -> [n] scores, unbounded, about 0 to 1.

    Args:
        model: a hub name or a folder.

    Raises ConfigError where the model cannot be had.
    """

    def __init__(self, model: str) -> None:
        import torch

        try:
            folder = _folder(model)
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
                config = json.load(file)
            load = _converted if config.get("model_type") == _KIND else _known
            self._tokenizer, self._model = load(folder, config)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise ConfigError(
                f"evaluate.bleurt: {model} cannot be loaded",
                found=f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}",
                expected="a hub name that can be reached, or a folder with a BLEURT model",
                mend='set it to a local folder, or to "" to leave BLEURT out',
            ) from error
        self._torch: Any = torch

    def __call__(self, predictions: Sequence[str], labels: Sequence[str]) -> Floats:
        """[n] scores; the reference stands first, as the authors' evaluator calls it (spec D.5)."""
        found = np.empty(len(predictions), dtype=np.float64)
        order = sorted(range(len(predictions)), key=lambda i: len(predictions[i]) + len(labels[i]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            inputs = self._tokenizer(
                [labels[i] for i in rows], [predictions[i] for i in rows], return_tensors="pt", padding=True,
                truncation=True, max_length=_MAX_TOKENS, return_token_type_ids=True,
            )  # fmt: skip
            with self._torch.inference_mode():
                logits = self._model(**inputs).logits.reshape(len(rows), -1)[:, 0]
            found[rows] = logits.float().numpy()
        return found


def _folder(model: str) -> str:
    if os.path.isdir(model):
        return model
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "pytorch_model.bin"]
    return str(snapshot_download(model, allow_patterns=patterns))


def _known(folder: str, config: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, local_files_only=True)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True), model.eval()


def _converted(folder: str, config: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import (
        DebertaV2Tokenizer,
        PreTrainedTokenizerFast,
        RemBertConfig,
        RemBertForSequenceClassification,
    )

    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
             "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id")  # fmt: skip
    narrow = config.get("embedding_size") or config["hidden_size"]
    given: dict[str, Any] = {name: config[name] for name in sizes if name in config}
    given |= {"input_embedding_size": narrow, "output_embedding_size": narrow, "num_labels": 1}
    model = RemBertForSequenceClassification(RemBertConfig(**given))
    weights = {}
    for name, tensor in _weights(folder).items():
        for old, new in _RENAMED:
            name = name.replace(old, new, 1)
        if not name.endswith("position_ids"):
            weights[name] = tensor
    if "rembert.encoder.embedding_hidden_mapping_in.weight" not in weights:  # equally wide: nothing is projected
        import torch

        weights["rembert.encoder.embedding_hidden_mapping_in.weight"] = torch.eye(narrow)
        weights["rembert.encoder.embedding_hidden_mapping_in.bias"] = torch.zeros(narrow)
    model.load_state_dict(weights)
    whole = os.path.isfile(os.path.join(folder, "tokenizer.json"))
    kind = PreTrainedTokenizerFast if whole else DebertaV2Tokenizer
    return kind.from_pretrained(folder, local_files_only=True), model.eval()


def _weights(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, "model.safetensors")
    if os.path.isfile(path):
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    return dict(torch.load(os.path.join(folder, "pytorch_model.bin"), map_location="cpu", weights_only=True))
