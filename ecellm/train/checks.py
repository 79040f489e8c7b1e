"""Looks at a model before the first step: do packed samples stay apart, and is the output head all that follows?

Not a test of numbers in general. The one decision: what cannot be seen from a model's name is tried out on a few
tokens, by all ranks together, so that a model or an attention that mixes samples ends the run before it has learnt
anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ecellm.data.batch import Batch, collate, collate_packed
from ecellm.errors import ConfigError
from ecellm.train.engine import Engine

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest difference of two logits that count as the same, beside the largest logit."""
_LENGTHS = (13, 9, 17)


def check_model(
    engine: Engine,
    *,
    packed: bool,
    encoder_decoder: bool,
    vocabulary: int,
    pad_id: int,
    say: Callable[[str], None],
) -> None:
    """Every rank calls this, before training.

    Args:
        packed: whether rows hold several samples.
        encoder_decoder: the kind of the model.
        vocabulary: token ids go from 0 up to, not including, this.
        say: takes a line about what was found.

    Raises:
        ConfigError: packed samples see each other, or the model takes no packed rows.
    """
    few = _samples(vocabulary)
    plain = collate([few[0]], np.ones((1, 2)), pad_id=pad_id, encoder_decoder=encoder_decoder)
    if not head_is_all(engine, plain):
        engine.use_own_forward()
        say("the model does more than its output head: losses go through its own forward, logits are held whole")
    if packed:
        found = leak(engine, vocabulary, pad_id)
        if found:
            raise ConfigError(
                "train.packing: samples in one row do not stay apart", found=found,
                expected="logits of a sample that its neighbours do not change",
                mend="set model.attention to another kind, or train.packing = false",
            )  # fmt: skip


def head_is_all(engine: Engine, batch: Batch) -> bool:
    """Whether logits are the output head's of the decoder's last hidden states."""
    try:
        alone, own = engine.logits(batch), engine.logits(batch, own=True)
    except (TypeError, AttributeError, RuntimeError):
        return False
    return alone.shape == own.shape and difference(alone, own) <= _tolerance(own)


def leak(engine: Engine, vocabulary: int, pad_id: int) -> str:
    """How samples of one row see each other; empty where they do not.

    Each of three samples is changed in turn: the others' logits must stay what they were. And each must get the logits
    that it gets alone.
    """
    few = _samples(vocabulary)
    try:
        before = _split(engine.logits(_row(few, pad_id)), few)
    except (TypeError, ValueError) as error:
        return f"the model takes no packed rows: {error}"
    for changed in range(len(few)):
        others = [_other(sample, vocabulary) if i == changed else sample for i, sample in enumerate(few)]
        after = _split(engine.logits(_row(others, pad_id)), few)
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            moved = difference(old, new)
            if i != changed and moved > _tolerance(old):
                return f"changing sample {changed + 1} of a row moves logits of sample {i + 1} by {moved:.2g}"
    for i, sample in enumerate(few):
        alone = _split(engine.logits(_row([sample], pad_id)), [sample])[0]
        apart = difference(alone, before[i])
        if apart > 10 * _tolerance(alone):
            return f"sample {i + 1} has logits that differ by {apart:.2g} from those it has alone"
    return ""


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference of two tensors, beside their largest value (or 1); infinite where a number is not finite."""
    apart = float((one.float() - other.float()).abs().max())
    return apart / max(1.0, float(one.abs().max())) if math.isfinite(apart) else math.inf


def _tolerance(logits: torch.Tensor) -> float:
    return TOLERANCE.get(logits.dtype, 1e-5)


def _samples(vocabulary: int) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.Generator(np.random.Philox(key=7))
    ids = [draw.integers(0, vocabulary, length).astype(np.int32) for length in _LENGTHS]
    return [(one[:-3], one[-3:]) for one in ids]


def _other(sample: tuple[np.ndarray, np.ndarray], vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    return ((sample[0] + 1) % vocabulary).astype(np.int32), ((sample[1] + 1) % vocabulary).astype(np.int32)


def _row(samples: list[tuple[np.ndarray, np.ndarray]], pad_id: int) -> Batch:
    return collate_packed(samples, np.ones((len(samples), 2)), pad_id=pad_id)


def _split(logits: torch.Tensor, samples: list[tuple[np.ndarray, np.ndarray]]) -> list[torch.Tensor]:
    """Logits of each sample of a row."""
    lengths = [len(prompt) + len(answer) for prompt, answer in samples]
    return list(logits[0, : sum(lengths)].split(lengths))
