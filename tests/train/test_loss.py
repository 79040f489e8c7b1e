"""The loss by itself: equal to the model's own cross-entropy, in one piece or in many, packed or padded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ecellm.data.batch import IGNORE, Batch, collate
from ecellm.records import World
from ecellm.train.loss import AnswerLoss, inputs_of, piece_tokens
from tests.train.toys import ToyTokens, toy_batches, toy_layout, toy_llama, toy_t5

CPU = torch.device("cpu")
NUMBERS = np.arange(8)


def own_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Written again from the definition, with the model's own logits of padded rows."""
    if model.config.is_encoder_decoder:
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).logits
        labels, weights = batch.labels, batch.loss_weights
    else:
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
        labels, weights = batch.labels[:, 1:], batch.loss_weights[:, 1:]
    each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORE)
    return (each * weights).sum()


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("piece", [0, 1, 3, 1000])
@pytest.mark.parametrize("kind", ["packed", "padded", "t5"])
@pytest.mark.parametrize("own", ["head", "own forward"])
def test_equals_the_definition(kind: str, piece: int, own: str) -> None:
    tokens, alone = ToyTokens(8), World(rank=0, size=1)
    model = toy_t5(tied=False) if kind == "t5" else toy_llama()
    model.train()
    whole = toy_layout(t5=kind == "t5", micro=8, pack_tokens=0)
    layout = toy_layout(
        t5=kind == "t5", micro=8, pack_tokens=1000 if kind == "packed" else 0, piece_tokens=piece,
        prompt_loss_weight=0.0 if kind == "t5" else 0.1,
    )  # fmt: skip
    weights = layout.weights(tokens, NUMBERS)
    [reference] = whole.micro_steps(tokens, NUMBERS, alone, whole.deal(tokens, NUMBERS, 1), weights)
    wanted = own_loss(model, reference)
    wanted_gradient = gradients(model, wanted)
    [batch] = toy_batches(tokens, NUMBERS, alone, layout)
    module = AnswerLoss(model)
    module.alone = own == "head"
    found = module(**inputs_of(batch, CPU))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(gradients(model, found), wanted_gradient, rtol=1e-4, atol=1e-6)


def test_all_ranks_run_the_head_in_as_many_pieces() -> None:
    tokens, layout = ToyTokens(9), toy_layout(piece_tokens=4)
    numbers = np.arange(9)
    dealt = layout.deal(tokens, numbers, 3)
    weights = layout.weights(tokens, numbers)
    pieces = [
        [batch.pieces for batch in layout.micro_steps(tokens, numbers, World(rank=rank, size=3), dealt, weights)]
        for rank in range(3)
    ]
    assert pieces[0] == pieces[1] == pieces[2]
    most = max(int(tokens.answer_lengths[rank[0]].sum()) for rank in dealt)
    assert pieces[0][0] == -(-most // 4) > 1


def test_no_more_logits_than_a_piece_at_once() -> None:
    """The head never sees more positions than a piece has, forward or backward."""
    model, seen = toy_llama(tied=False), []
    model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    layout = toy_layout(pack_tokens=1000, piece_tokens=5)
    [batch] = toy_batches(ToyTokens(8), NUMBERS, World(rank=0, size=1), layout)
    AnswerLoss(model)(**inputs_of(batch, CPU)).backward()
    assert max(seen) <= 5
    assert len(seen) == 2 * batch.pieces > 2


def test_a_rank_without_work_still_runs_everything() -> None:
    model = toy_llama()
    batch = collate([], [], pad_id=0, encoder_decoder=False, pieces=2)
    loss = AnswerLoss(model)(**inputs_of(batch, CPU))
    assert loss.item() == 0.0
    assert not gradients(model, loss).any()


def test_pieces_fit_their_bytes() -> None:
    assert piece_tokens(32_000) * 32_000 * 4 <= 256 << 20
    assert piece_tokens(10**12) == 1
