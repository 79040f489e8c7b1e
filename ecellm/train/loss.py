"""The loss as a module: sum of weight times cross-entropy over the tokens that count, inside the model's own forward.

Not a mean of anything: the weights were worked out over the whole global batch (`data.batch`), so sums over
micro-steps and ranks are the loss. The one decision: only positions with a weight go through the output head, and a
piece of them at a time, recomputed in the backward pass; so the logits of a large vocabulary are never held whole.
Liger's fused kernel would do that in one pass, but takes no weight for each token (linkedin/Liger-Kernel issue 338),
and until pull request 1298 gave silently wrong gradients where losses are weighted afterwards (issue 968): it is not
used.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ecellm.data.batch import IGNORE, Batch

PIECE_BYTES = 256 << 20
"""Most bytes of fp32 logits at once."""
Want = Literal["loss", "logits", "own_logits"]


def piece_tokens(vocabulary: int) -> int:
    """Positions whose logits fill `PIECE_BYTES`, at least 1."""
    return max(1, PIECE_BYTES // (4 * vocabulary))


class AnswerLoss(nn.Module):
    """Wraps a causal or encoder-decoder model of transformers, with or without adapters.

    What lies between hidden states and logits is taken to be the output head alone. Models that do more there (scaling,
    capping) are found out by `train.checks` and run through their own forward instead: `alone` False.
    """

    _base: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        adapted: Any = model
        base = adapted.get_base_model() if hasattr(model, "get_base_model") else adapted
        # Not as modules of ours: they would be registered, and saved, twice.
        object.__setattr__(self, "_base", base)
        self.encoder_decoder = bool(base.config.is_encoder_decoder)
        self.alone = base.get_output_embeddings() is not None

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        loss_weights: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        bounds: Tensor | None = None,
        longest: int = 0,
        pieces: int = 1,
        want: Want = "loss",
    ) -> Tensor:
        """Sum of weight times cross-entropy (fp32, natural logarithm): a scalar with a graph.

        Args: fields of `Batch`. `want` asks for logits of every position instead, [batch, seq, vocabulary]: through the
            head alone, or as the model itself gives them.
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        if position_ids is not None:
            inputs |= {"position_ids": position_ids}
        if bounds is not None:
            inputs |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), bounds)
            inputs |= dict.fromkeys(("max_length_q", "max_length_k"), longest)
        if self.encoder_decoder:
            inputs["decoder_input_ids"] = self._base.prepare_decoder_input_ids_from_labels(labels)
        else:  # the token at t + 1 is predicted at t
            labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE)  # [batch, seq]
            loss_weights = F.pad(loss_weights[:, 1:], (0, 1))  # [batch, seq]
        if want == "own_logits" or not self.alone:
            logits: Tensor = self.model(**inputs).logits
            if want != "loss":
                return logits
            return _loss(logits.flatten(0, 1), labels.flatten(), loss_weights.flatten())
        hidden = self._hidden(inputs)  # [batch, seq, width]
        if want == "logits":
            return self._head(hidden)
        chosen = loss_weights > 0
        return self._sum(hidden[chosen], labels[chosen], loss_weights[chosen], pieces)

    def _hidden(self, inputs: dict[str, Any]) -> Tensor:
        if not self.encoder_decoder:
            return self._base.get_decoder()(**inputs).last_hidden_state  # type: ignore[no-any-return]
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        states = self._base.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        decoded = self._base.get_decoder()(
            input_ids=inputs["decoder_input_ids"], encoder_hidden_states=states, encoder_attention_mask=mask,
            use_cache=False,
        )  # fmt: skip
        return decoded.last_hidden_state  # type: ignore[no-any-return]

    def _head(self, hidden: Tensor) -> Tensor:
        return self._base.get_output_embeddings()(hidden)  # type: ignore[no-any-return]

    def _sum(self, hidden: Tensor, labels: Tensor, weights: Tensor, pieces: int) -> Tensor:
        """Loss of the chosen positions, `hidden` [tokens, width], in so many pieces (some may be empty)."""

        def piece(part: Tensor, wanted: Tensor, scales: Tensor) -> Tensor:
            return _loss(self._head(part), wanted, scales)

        if pieces == 1:
            return piece(hidden, labels, weights)
        total = hidden.new_zeros((), dtype=torch.float32)
        for part, wanted, scales in zip(*(x.tensor_split(pieces) for x in (hidden, labels, weights)), strict=True):
            done = checkpoint(piece, part, wanted, scales, use_reentrant=False)
            assert isinstance(done, Tensor)
            total = total + done
        return total


def inputs_of(batch: Batch, device: torch.device) -> dict[str, Any]:
    """A batch as arguments of `AnswerLoss`, on the device. Bounds stay where attention reads them."""
    moved = {
        name: tensor.to(device, non_blocking=True)
        for name in ("input_ids", "labels", "loss_weights", "attention_mask", "position_ids", "bounds")
        if (tensor := getattr(batch, name)) is not None
    }
    return {**moved, "longest": batch.longest, "pieces": batch.pieces}


def _loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Logits [tokens, vocabulary]; 0 with a graph where there are no tokens."""
    losses = F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=IGNORE)  # [tokens]
    return (losses * weights).sum()
