"""Nodes of a cluster that is joined: those without this code, or without OUT, are named before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecellm.errors import ClusterError, StorageError
from ecellm.nodes import _judge, code_digest, see


def test_a_node_that_sees_the_file_has_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("nonce")
    assert see(str(tmp_path), "k", "nonce") == (code_digest(), "")
    assert "another" in see(str(tmp_path), "k", "other")[1]
    assert "does not see" in see(str(tmp_path / "elsewhere"), "k", "nonce")[1]


def test_a_node_is_named_with_its_fault() -> None:
    with pytest.raises(StorageError, match=r"node 10\.0\.0\.2, /out: does not see"):
        _judge("10.0.0.2", code_digest(), "does not see what the driver wrote there", "/out")
    with pytest.raises(ClusterError, match=r"node 10\.0\.0\.2 cannot run this code(?s:.*)its code is 0000"):
        _judge("10.0.0.2", "0000", "", "/out")
