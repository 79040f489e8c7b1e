"""Made-up rows and a small tokenizer for the data tests."""

import pytest

from ecellm.model.tiny import train_tokenizer
from ecellm.records import Row
from tests.data.made import make_row


@pytest.fixture
def rows() -> list[Row]:
    """25 train rows and 5 val rows."""
    return [make_row(n) for n in range(25)] + [make_row(n, "val") for n in range(5)]


@pytest.fixture(scope="session")
def tokenizer() -> object:
    """The tiny preset's tokenizer, trained on a few rows."""
    texts = [text for n in range(40) for text in (make_row(n).input, make_row(n).instruction, make_row(n).output)]
    return train_tokenizer(texts, 400, "alpaca")
