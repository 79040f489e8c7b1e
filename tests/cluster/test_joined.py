"""A cluster of two nodes that is joined: both are asked for their code and for OUT before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecellm.errors import ClusterError
from ecellm.nodes import check_nodes
from tests.cluster.head import Head, second_node
from tests.data.made import make_run


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_every_node_is_asked(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECELLM_NODES_CHECKED", raising=False)
    with second_node(head):
        from ecellm.session import quiet_init

        quiet_init(address=head.address)
        import ray

        try:
            assert sum(node["Alive"] for node in ray.nodes()) == 2
            check_nodes(make_run(str(tmp_path)))
            assert not list(tmp_path.glob(".bringup/*"))
            monkeypatch.setattr("ecellm.nodes.code_digest", lambda: "another")
            with pytest.raises(ClusterError, match="cannot run this code"):
                check_nodes(make_run(str(tmp_path)))
        finally:
            ray.shutdown()
