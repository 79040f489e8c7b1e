"""Both kinds of BLEURT folders, with small random weights: the real ones cannot be fetched here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, RemBertConfig, RemBertForSequenceClassification

from ecellm.bleurt import Bleurt
from ecellm.errors import ConfigError
from ecellm.tasks.base import Case
from ecellm.tasks.registry import task

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip
PREDICTIONS, LABELS = ["a lamp", "red lamp", ""], ["a red lamp", "red lamp", "a"]


def tokenizer(folder: Path) -> None:
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "lamp", "red"]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)


def wanted(model: torch.nn.Module, folder: Path) -> list[float]:
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(folder)
    found = []
    for prediction, label in zip(PREDICTIONS, LABELS, strict=True):
        with torch.no_grad():
            found.append(float(model(**read([label], [prediction], return_tensors="pt")).logits))
    return found


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Path, list[float]]:
    torch.manual_seed(1)
    model = BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).eval()
    model.save_pretrained(tmp_path)
    tokenizer(tmp_path)
    return tmp_path, wanted(model, tmp_path)


def test_a_classifier_is_asked_with_the_reference_first(classifier: tuple[Path, list[float]]) -> None:
    folder, expected = classifier
    assert Bleurt(str(folder))(PREDICTIONS, LABELS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pickled", [True, False])
def test_a_conversion_of_bleurt_20_is_a_rembert_by_other_names(tmp_path: Path, pickled: bool) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(2)
    narrow = RemBertConfig(**SIZES, input_embedding_size=16, output_embedding_size=16, num_labels=1, pad_token_id=0)
    model = RemBertForSequenceClassification(narrow).eval()
    tokenizer(tmp_path)
    renamed = {
        name.replace("rembert.", "bleurt.", 1).replace("embedding_hidden_mapping_in", "embedding_projection"): tensor
        for name, tensor in model.state_dict().items()
    }
    if pickled:
        torch.save(renamed, tmp_path / "pytorch_model.bin")
    else:
        save_file(renamed, tmp_path / "model.safetensors")
    config = {**SIZES, "model_type": "bleurt", "embedding_size": 16, "layer_norm_eps": narrow.layer_norm_eps}
    (tmp_path / "config.json").write_text(json.dumps(config | {"type_vocab_size": 2, "pad_token_id": 0}))
    assert Bleurt(str(tmp_path))(PREDICTIONS, LABELS) == pytest.approx(wanted(model, _as_bert(tmp_path)), abs=1e-5)


def _as_bert(folder: Path) -> Path:
    """The tokenizer alone, in a folder whose config says nothing of a model that transformers does not know."""
    other = folder / "tokenizer"
    other.mkdir()
    tokenizer(other)
    return other


def test_blanks_score_nothing_and_failures_leave_the_papers_mean(classifier: tuple[Path, list[float]]) -> None:
    folder, expected = classifier
    score = Bleurt(str(folder))
    case = Case(predictions=tuple(PREDICTIONS), labels=tuple(LABELS), setting="IND", bleurt=score)
    assert task("AG").score(case, "strict")["bleurt"] == pytest.approx(sum(expected[:2]) / 3, abs=1e-5)
    paper = task("AG").score(case, "paper")
    assert paper["bleurt"] == pytest.approx(np.mean(expected), abs=1e-5)

    def fails(predictions: object, labels: object) -> object:
        found = score(PREDICTIONS, LABELS)
        found[0] = np.nan
        return found

    broken = Case(predictions=tuple(PREDICTIONS), labels=tuple(LABELS), setting="IND", bleurt=fails)  # type: ignore[arg-type]
    paper = task("AG").score(broken, "paper")
    assert paper["bleurt"] == pytest.approx(np.mean(expected[1:]), abs=1e-5)
    assert paper["#invalid"] == 1
    assert task("AG").score(broken, "strict")["bleurt"] == pytest.approx(expected[1] / 3, abs=1e-5)


def test_no_model_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.bleurt"):
        Bleurt(str(tmp_path))
