"""Weights sum to 1 and say what counts alike; padding never reaches the loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecellm.data.batch import IGNORE, Weighting, collate, collate_packed, token_weights

TASKS, ANSWERS, PROMPTS = np.array([0, 0, 3]), np.array([1, 9, 4]), np.array([7, 3, 5])


@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 200), st.integers(1, 300)), min_size=1, max_size=20),
    weighting=st.sampled_from(["token", "root", "sample", "task"]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_weights_sum_to_one(rows: list[tuple[int, int, int]], weighting: Weighting, share: float) -> None:
    tasks, answers, prompts = (np.array(column) for column in zip(*rows, strict=True))
    weights = token_weights(tasks, answers, prompts, weighting, share)
    assert (weights[:, 0] * (prompts - 1) + weights[:, 1] * answers).sum() == pytest.approx(1.0)


def shares(weighting: Weighting) -> list[float]:
    weights = token_weights(TASKS, ANSWERS, PROMPTS, weighting, 0.0)
    assert not weights[:, 0].any()
    return [float(share) for share in weights[:, 1] * ANSWERS]


def test_what_counts_alike() -> None:
    assert shares("token") == pytest.approx([1 / 14, 9 / 14, 4 / 14])
    assert shares("root") == pytest.approx([1 / 6, 3 / 6, 2 / 6])
    assert shares("sample") == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert shares("task") == pytest.approx([1 / 4, 1 / 4, 1 / 2])


def test_a_sample_without_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="answer token"):
        token_weights(TASKS, np.array([1, 0, 2]), PROMPTS, "token", 0.0)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int32)


def test_decoder_batch() -> None:
    batch = collate(
        [(ids(1, 5, 6), ids(7, 2)), (ids(1, 8), ids(2))], [(0.0, 0.25), (0.0, 0.5)], pad_id=9, encoder_decoder=False
    )
    assert batch.input_ids.tolist() == [[1, 5, 6, 7, 2, 9, 9, 9], [1, 8, 2, 9, 9, 9, 9, 9]]
    assert batch.attention_mask.tolist() == [[1] * 5 + [0] * 3, [1] * 3 + [0] * 5]
    x = IGNORE
    assert batch.labels.tolist() == [[x, x, x, 7, 2, x, x, x], [x, x, 2, x, x, x, x, x]]
    assert batch.loss_weights.tolist() == [[0, 0, 0, 0.25, 0.25, 0, 0, 0], [0, 0, 0.5, 0, 0, 0, 0, 0]]


def test_prompt_tokens_are_learnt_when_weighted() -> None:
    batch = collate([(ids(1, 5, 6), ids(7, 2))], [(0.125, 0.25)], pad_id=9, encoder_decoder=False)
    assert batch.labels[0, :5].tolist() == [IGNORE, 5, 6, 7, 2]
    assert batch.loss_weights[0, :5].tolist() == [0, 0.125, 0.125, 0.25, 0.25]


def test_encoder_decoder_batch() -> None:
    batch = collate([(ids(*range(3, 12)), ids(7, 2))], [(0.0, 0.5)], pad_id=0, encoder_decoder=True)
    assert batch.input_ids.shape == (1, 16)
    assert batch.labels.shape == (1, 8)
    assert batch.labels[0, :3].tolist() == [7, 2, IGNORE]
    assert batch.loss_weights[0, :3].tolist() == [0.5, 0.5, 0.0]


def test_no_samples_give_a_harmless_row() -> None:
    batch = collate([], [], pad_id=4, encoder_decoder=False)
    assert batch.input_ids.shape == (1, 8)
    assert batch.attention_mask.all()
    assert (batch.labels == IGNORE).all()
    assert not batch.loss_weights.any()


def test_packed_batch() -> None:
    samples = [
        (ids(1, 5, 6), ids(7, 2)),
        (ids(1, 8), ids(2)),
        (
            ids(
                4,
            ),
            ids(3, 2),
        ),
    ]
    batch = collate_packed(samples, [(0.0, 0.25), (0.0, 0.5), (0.1, 0.3)], pad_id=9)
    assert batch.input_ids.tolist() == [[1, 5, 6, 7, 2, 1, 8, 2, 4, 3, 2, 9, 9, 9, 9, 9]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch.bounds is not None
    assert batch.bounds.tolist() == [0, 5, 8, 11, 16]
    assert batch.longest == 5
    x = IGNORE
    assert batch.labels.tolist() == [[x, x, x, 7, 2, x, x, 2, x, 3, 2, x, x, x, x, x]]
    scales = [0, 0, 0, 0.25, 0.25, 0, 0, 0.5, 0, 0.3, 0.3, 0, 0, 0, 0, 0]
    assert batch.loss_weights.tolist() == [pytest.approx(scales)]


def test_no_samples_give_a_harmless_packed_row() -> None:
    batch = collate_packed([], np.zeros((0, 2)), pad_id=4)
    assert batch.input_ids.tolist() == [[4] * 8]
    assert not batch.loss_weights.any()


def test_loss_does_not_depend_on_the_cut() -> None:
    generator = np.random.default_rng(0)
    lengths = [(int(a), int(b)) for a, b in generator.integers(2, 12, (7, 2))]
    samples = [(generator.integers(0, 30, a, np.int32), generator.integers(0, 30, b, np.int32)) for a, b in lengths]
    prompts, answers = (np.array(column) for column in zip(*lengths, strict=True))
    weights = token_weights(np.arange(7) % 3, answers, prompts, "task", 0.1)
    table = torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(numbers: list[int]) -> float:
        batch = collate([samples[i] for i in numbers], weights[numbers], pad_id=0, encoder_decoder=False)
        logits = table[batch.input_ids[:, :-1]].transpose(1, 2)
        each = torch.nn.functional.cross_entropy(logits, batch.labels[:, 1:], reduction="none", ignore_index=IGNORE)
        return float((each * batch.loss_weights[:, 1:]).sum())

    whole = loss(list(range(7)))
    assert whole == pytest.approx(loss([0, 1, 2]) + loss([3]) + loss([4, 5, 6]), rel=1e-6)
