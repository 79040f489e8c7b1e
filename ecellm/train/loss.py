"""The loss: sum of weight times cross-entropy over the tokens that count.

Not a mean of anything: the weights were worked out over the whole global batch (`data.batch`), so sums over
micro-steps and ranks are the loss. The one decision: only positions with a weight go through the output head, where
the model can be told so (`logits_to_keep` in transformers); answers are short, and the head is wide.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ecellm.data.batch import IGNORE, Batch

Forward = Callable[..., object]


class TokenLoss:
    """Cross-entropy of a batch under one model.

    Args:
        module: the model; asked only what it can do.
        forward: what to call: the model, or an engine that wraps it.
    """

    def __init__(self, module: nn.Module, forward: Forward) -> None:
        self._forward = forward
        adapted: Any = module
        base = adapted.get_base_model() if hasattr(module, "get_base_model") else adapted
        self._encoder_decoder = bool(base.config.is_encoder_decoder)
        self._picks = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._base = base

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Sum of weight times cross-entropy (fp32, natural logarithm) over a batch: scalar with a graph."""
        logits, labels, weights = self._answers(batch)
        losses = F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=IGNORE)  # [tokens]
        return (losses * weights).sum()

    def _answers(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(logits [tokens, vocabulary], labels [tokens], weights [tokens]) of the positions that count."""
        if self._encoder_decoder:
            shifted = self._base.prepare_decoder_input_ids_from_labels(batch.labels)
            output = self._forward(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, decoder_input_ids=shifted,
                use_cache=False,
            )  # fmt: skip
            chosen = _some(batch.loss_weights > 0)
            return _logits(output)[chosen], batch.labels[chosen], batch.loss_weights[chosen]
        # The token at t + 1 is predicted at t.
        labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)  # [batch, seq]
        weights = F.pad(batch.loss_weights[:, 1:], (0, 1))  # [batch, seq]
        chosen = _some(weights > 0)
        options = {"logits_to_keep": chosen} if self._picks else {}
        output = self._forward(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **options
        )
        logits = _logits(output)
        return logits if logits.dim() == 2 else logits[chosen], labels[chosen], weights[chosen]


def _some(chosen: torch.Tensor) -> torch.Tensor:
    """At least one position: a rank without work still runs the head, as the collectives of the others expect."""
    if not bool(chosen.any()):
        chosen = chosen.clone()
        chosen[0, 0] = True
    return chosen


def _logits(output: object) -> torch.Tensor:
    logits = output.logits  # type: ignore[attr-defined]
    assert isinstance(logits, torch.Tensor)
    return logits
