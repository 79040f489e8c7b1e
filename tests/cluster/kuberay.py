"""Checks a KubeRay manifest as a strict apply and the operator would: the CRD's schema, and the rules outside of it.

A custom resource definition prunes unknown fields in silence; here they are refused, as `kubectl --validate=strict`
does. The rules are those of KubeRay 1.7's operator and of Kueue, read from their sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_DROPPED = ("description", "default", "format", "nullable")


def load(path: Path) -> Any:
    """One YAML document, by the fast parser."""
    return yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def strict(schema: Any) -> Any:
    """An OpenAPI schema of a CRD as JSON Schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: strict(one) for name, one in value.items()}
        elif key not in _DROPPED and not key.startswith("x-kubernetes"):
            kept[key] = strict(value)
    fields = schema.get("properties")
    if fields and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = False
    if fields and "required" in kept:  # the API server fills in defaults before it validates
        kept["required"] = [name for name in kept["required"] if "default" not in fields.get(name, {})]
    if schema.get("x-kubernetes-int-or-string"):
        kept = {"type": ["integer", "string"]}
    if schema.get("nullable") and "type" in kept:
        kept["type"] = [kept["type"], "null"]
    return kept


def validators(folder: Path) -> dict[tuple[str, str], jsonschema.Draft202012Validator]:
    """By (apiVersion, kind), of the definitions in a folder."""
    found = {}
    for path in sorted(folder.glob("ray.io_*.yaml")):
        spec = load(path)["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found[key] = jsonschema.Draft202012Validator(schema)
    return found


def schema_errors(known: dict[tuple[str, str], jsonschema.Draft202012Validator], thing: Any) -> list[str]:
    """What the schema refuses, each with its path."""
    errors = known[thing["apiVersion"], thing["kind"]].iter_errors(thing)
    return ["/".join(map(str, error.absolute_path)) + ": " + error.message for error in errors]


def rule_errors(thing: Any) -> list[str]:
    """What the operator or Kueue would refuse although the schema takes it."""
    spec = thing["spec"]
    found = list(_names(thing["metadata"]["name"]))
    cluster = spec.get("rayClusterSpec", spec)
    if thing["kind"] == "RayJob":
        found += _job(spec, cluster)
    found += _cluster(cluster)
    if "kueue.x-k8s.io/queue-name" in thing["metadata"].get("labels", {}):
        found += _kueue(spec, cluster)
    if "volcano.sh/queue-name" in thing["metadata"].get("labels", {}) and cluster.get("enableInTreeAutoscaling"):
        gangs = [group for group in cluster["workerGroupSpecs"] if group["minReplicas"] != group["replicas"]]
        found += [f"{group['groupName']}: a Volcano gang counts minReplicas" for group in gangs]
    return found


def _names(name: str) -> Iterator[str]:
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", name):
        yield f"{name}: not a short DNS-1035 label"


def _job(spec: Any, cluster: Any) -> Iterator[str]:
    if spec.get("submissionMode", "K8sJobMode") not in MODES:
        yield f"submissionMode: {spec['submissionMode']}"
    if (spec.get("suspend") or spec.get("ttlSecondsAfterFinished")) and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend and ttlSecondsAfterFinished need shutdownAfterJobFinishes"
    if spec.get("backoffLimit", 0) < 0 or (spec.get("backoffLimit") and spec.get("clusterSelector")):
        yield "backoffLimit: negative, or with clusterSelector"
    if spec.get("activeDeadlineSeconds", 1) <= 0:
        yield "activeDeadlineSeconds: not positive"
    yield from _waits(spec["entrypoint"].split(), cluster)
    yield from _saves(yaml.safe_load(spec.get("runtimeEnvYAML", "")) or {}, cluster)


def _waits(words: list[str], cluster: Any) -> Iterator[str]:
    """Groups that start at zero come after preRunningDeadlineSeconds: the stage itself must wait for nodes to boot."""
    from_zero = cluster.get("enableInTreeAutoscaling") and any(
        group["replicas"] == 0 for group in cluster["workerGroupSpecs"]
    )
    if from_zero and "--cluster.startup_timeout_s" not in words:
        yield "entrypoint: nodes come from zero, and --cluster.startup_timeout_s is its default"
    if from_zero and "--cluster.evaluate_markets" in words and "--cluster.market_wait_s" not in words:
        yield "entrypoint: nodes come from zero, and --cluster.market_wait_s is its default"


def _saves(environment: Any, cluster: Any) -> Iterator[str]:
    """Ray ends a stopped job after 3 s and Kubernetes a pod after 30, unless told how long a stop may take."""
    seconds = int(environment.get("env_vars", {}).get("RAY_JOB_STOP_WAIT_TIME_S", 0))
    if not seconds:
        yield "runtimeEnvYAML: no RAY_JOB_STOP_WAIT_TIME_S"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        if group["template"]["spec"].get("terminationGracePeriodSeconds", 30) < seconds:
            yield f"{group.get('groupName', 'head')}: its pods end before a stop has saved"


def _cluster(cluster: Any) -> Iterator[str]:
    scaling = cluster.get("enableInTreeAutoscaling")
    if cluster.get("authOptions", {}).get("mode") == "token":
        version = tuple(int(part) for part in cluster["rayVersion"].split("."))
        if version < (2, 52, 0):
            yield "authOptions.mode token needs Ray 2.52"
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())]:
        name, pod = group.get("groupName", "head"), group["template"]["spec"]
        if scaling and pod.get("restartPolicy", "Never") != "Never":
            yield f"{name}: restartPolicy must be Never under autoscaler v2"
        if group.get("resources") and {"num-cpus", "num-gpus", "resources"} & set(group["rayStartParams"]):
            yield f"{name}: resources in two places"
        if "labels" in group["rayStartParams"]:
            yield f"{name}: labels belong in the group's labels"
        if scaling and group.get("suspend"):
            yield f"{name}: suspend with autoscaling"
        if not scaling and name != "head" and not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{name}: replicas outside of its bounds"


def _kueue(spec: Any, cluster: Any) -> Iterator[str]:
    if cluster.get("enableInTreeAutoscaling"):
        yield "Kueue refuses enableInTreeAutoscaling"
    if not spec.get("shutdownAfterJobFinishes") or spec.get("clusterSelector"):
        yield "Kueue wants shutdownAfterJobFinishes and no clusterSelector"
    if "suspend" in spec:
        yield "Kueue owns suspend"
    groups = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    if len(groups) > 17 or "head" in groups:
        yield "Kueue takes at most 17 worker groups, none of them named head"
