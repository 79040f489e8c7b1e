"""Attention over packed rows without flash attention: each sample by itself, through PyTorch's own kernel.

A packed row holds many samples, and a block mask makes the kernel work out, and throw away, what lies between them.
Here the row is cut at the samples' bounds (`cu_seq_lens_q`, as flash attention takes them), so nothing is computed for
nothing and nothing can leak. The one decision: without bounds it is plain causal attention of unpadded rows; masks
are refused.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

VARLEN = "sdpa_varlen"


def register() -> None:
    """Make `attn_implementation="sdpa_varlen"` known to transformers. Twice does no harm.

    No mask function goes with it: transformers then makes no mask and hands over the bounds alone.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, varlen_attention)


def varlen_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sample of a packed row.

    Args:
        query: [batch, heads, seq, width]; batch is 1 where there are bounds.
        key, value: [batch, key heads, seq, width].
        cu_seq_lens_q: int32 [samples + 1], where samples begin, and the end.
        sliding_window: keys that a query sees, itself included; None: all before it.

    Returns:
        [batch, seq, heads, width], and None in place of the attention weights.

    Raises:
        ValueError: a mask or soft capping, which this does not know.
    """
    if attention_mask is not None or softcap is not None:
        raise ValueError(f"{VARLEN} takes no mask and no soft capping: set model.attention to eager")
    heads, kept = query.shape[1], key.shape[1]
    if heads != kept:
        key, value = (part.repeat_interleave(heads // kept, dim=1) for part in (key, value))
    bounds = [0, query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    lengths = [end - start for start, end in pairwise(bounds)]
    parts = []
    # split, not slices: its backward pass puts the gradients together once, where each slice would fill a whole row
    for q, k, v in zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True):
        length = q.shape[2]
        near = sliding_window is not None and length > sliding_window
        mask = _window(length, sliding_window or 0, query.device) if near else None
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, is_causal=mask is None
        )
        parts.append(out)  # [batch, heads, length, width]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _window(length: int, window: int, device: torch.device) -> Tensor:
    """True where a key is at or before its query and within the window: bool [length, length]."""
    at = torch.arange(length, device=device)
    behind = at[:, None] - at[None, :]
    return (behind >= 0) & (behind < window)
