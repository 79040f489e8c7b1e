"""A node provider for Ray's real autoscaler whose machines are local raylets, each on a loopback address of its own.

The autoscaler's monitor loads it by name (`provider: {type: external}`) in a process of its own, so what happens is
written to a file. `no_capacity` names node types that refuse every launch, as EC2 does when it has none.
"""

from __future__ import annotations

import json
from typing import Any

from ray._private import ray_constants
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)


class Provider(FakeMultiNodeProvider):
    """Ray's own fake, but for the names of node types, the addresses and the record."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._nodes[self._head_node_id]["tags"][TAG_RAY_USER_NODE_TYPE] = provider_config["head_node_type"]

    def _note(self, **facts: Any) -> None:
        with open(self.provider_config["log"], "a", encoding="utf-8") as log:
            log.write(json.dumps(facts) + "\n")

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: dict[str, Any], labels: dict[str, str]
    ) -> None:
        kind = tags[TAG_RAY_USER_NODE_TYPE]
        with self.lock:
            if kind in self.provider_config.get("no_capacity", ()):
                self._note(refused=kind)
                raise NodeLaunchException("InsufficientInstanceCapacity", f"no {kind} to be had", None)
            name = self._next_hex_node_id()
            address = f"127.0.1.{self._next_node_id}"
            self._note(created=kind, address=address)
            self._nodes[name] = {
                "node": self._raylet(name, kind, address, dict(resources), labels),
                "tags": {
                    TAG_RAY_NODE_KIND: NODE_KIND_WORKER, TAG_RAY_USER_NODE_TYPE: kind, TAG_RAY_NODE_NAME: name,
                    TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE, **tags,
                },
            }  # fmt: skip

    def _raylet(self, name: str, kind: str, address: str, resources: dict[str, Any], labels: dict[str, str]) -> Node:
        amounts = {key: resources.pop(key, 0) for key in ("CPU", "GPU")}
        store, memory = resources.pop("object_store_memory", None), resources.pop("memory", None)
        return Node(
            RayParams(
                node_ip_address=address, min_worker_port=0, max_worker_port=0, dashboard_agent_listen_port=0,
                num_cpus=amounts["CPU"], num_gpus=amounts["GPU"], memory=memory, object_store_memory=store,
                resources=resources, labels=labels, gcs_address=self._gcs_address, redis_address=self._gcs_address,
                env_vars={
                    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": name, "RAY_CLOUD_INSTANCE_ID": name, "RAY_NODE_TYPE_NAME": kind,
                    ray_constants.RESOURCES_ENVIRONMENT_VARIABLE: json.dumps(resources),
                    ray_constants.LABELS_ENVIRONMENT_VARIABLE: json.dumps(labels),
                },
            ),
            head=False, shutdown_at_exit=False, spawn_reaper=False,
        )  # fmt: skip

    def terminate_node(self, node_id: str) -> Any:
        self._note(terminated=self._nodes[node_id]["tags"][TAG_RAY_USER_NODE_TYPE])
        return super().terminate_node(node_id)
