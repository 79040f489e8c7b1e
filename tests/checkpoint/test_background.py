"""One checkpoint on its way at a time; what it ended with is handed over, not thrown."""

from __future__ import annotations

import threading

import pytest
import torch

from ecellm.checkpoint.background import Publisher
from ecellm.checkpoint.hostcopy import HostCopy
from ecellm.checkpoint.layout import Slice
from ecellm.errors import StorageError


def test_work_goes_on_while_training_does() -> None:
    publisher, gate = Publisher(), threading.Event()
    assert publisher.collect(wait=True) is None
    publisher.start(4, gate.wait)
    assert publisher.busy
    assert publisher.collect(wait=False) is None
    with pytest.raises(RuntimeError, match="step 4 has not been collected"):
        publisher.start(8, gate.wait)
    gate.set()
    assert publisher.collect(wait=True) == (4, None)
    assert not publisher.busy


def test_our_errors_are_handed_over_and_others_raised() -> None:
    publisher, trouble = Publisher(), StorageError("no bucket")

    def fail(error: Exception) -> None:
        raise error

    publisher.start(4, lambda: fail(trouble))
    assert publisher.collect(wait=True) == (4, trouble)
    publisher.start(8, lambda: fail(KeyError("x")))
    with pytest.raises(KeyError):
        publisher.collect(wait=True)
    publisher.start(12, lambda: None)
    assert publisher.collect(wait=True) == (12, None)


def test_a_copy_does_not_follow_training_and_its_memory_is_used_again() -> None:
    weights, copy = torch.arange(5.0), HostCopy()
    piece = Slice("w", "param", 0, 5, weights)
    [first] = copy.take([piece])
    weights += 1
    assert first.tensor.tolist() == [0, 1, 2, 3, 4]
    [second] = copy.take([piece])
    assert second.tensor.tolist() == [1, 2, 3, 4, 5]
    assert second.tensor.data_ptr() == first.tensor.data_ptr()
