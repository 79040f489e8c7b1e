"""Our bytes are a safetensors file: the library reads them, wherever a reader begins."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save_file

from ecellm.checkpoint.tensorfile import TensorFile

TENSORS = {"b": torch.arange(7.0), "a": torch.randn(3, 5), "none": torch.zeros(0), "last": torch.tensor([1.5])}


def test_the_library_reads_it(tmp_path: Path) -> None:
    data = TensorFile(TENSORS).read()
    assert {name: one.tolist() for name, one in load(data).items()} == {k: v.tolist() for k, v in TENSORS.items()}
    save_file(TENSORS, tmp_path / "x")
    assert len(data) == (tmp_path / "x").stat().st_size


@given(cuts=st.lists(st.integers(0, 400), max_size=8), size=st.integers(1, 64))
def test_reads_from_anywhere(cuts: list[int], size: int) -> None:
    file = TensorFile(TENSORS)
    whole = file.read()
    for at in cuts:
        file.seek(at)
        assert file.tell() == at
        assert file.read(size) == whole[at : at + size]
    assert file.seek(0, io.SEEK_END) == file.size == len(whole)
    assert file.read(5) == b""
    file.seek(3)
    buffer = bytearray(size)
    count = file.readinto(buffer)
    assert bytes(buffer[:count]) == whole[3 : 3 + size]


def test_digests_are_those_of_the_bytes() -> None:
    file = TensorFile(TENSORS)
    whole, blocks = file.digests(block_bytes=100)
    data = file.read()
    assert whole == hashlib.sha256(data).hexdigest()
    assert blocks == tuple(hashlib.sha256(data[i : i + 100]).hexdigest() for i in range(0, len(data), 100))


@pytest.mark.parametrize("bad", [torch.zeros(3, dtype=torch.float64), torch.zeros(4, 4).t()[:2]])
def test_other_tensors_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="contiguous fp32"):
        TensorFile({"x": bad})
