"""KubeRay manifests against the real CRD schemas, read strictly, and against the rules that only the operator knows."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ecellm.config.load import load_run
from ecellm.plan import plan, stop_seconds
from tests.cluster.kuberay import load, rule_errors, schema_errors, validators

TOP = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((TOP / "cluster/kuberay").glob("ray*.yaml"))
Known = dict[tuple[str, str], jsonschema.Draft202012Validator]


@pytest.fixture(scope="session")
def known(shared: Path) -> Known:
    folder = shared / "data/kuberay-crds"
    if not folder.is_dir():
        pytest.skip("KUBERAY MANIFESTS ARE NOT CHECKED HERE: no kuberay-crds in the shared data")
    return validators(folder)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_each_manifest_is_taken(known: Known, path: Path) -> None:
    thing = load(path)
    assert schema_errors(known, thing) == []
    assert rule_errors(thing) == []


def changed(path: str, value: Any, of: str = "train-kueue") -> Any:
    """A RayJob's manifest with one field set."""
    thing = copy.deepcopy(load(TOP / f"cluster/kuberay/rayjob-{of}.yaml"))
    *parts, last = path.split(".")
    here = thing
    for part in parts:
        here = here[int(part) if part.isdigit() else part]
    here[last] = value
    return thing


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplica", 3),
        ("spec.rayClusterSpec.workerGroupSpecs.0.replicas", "2"),
        ("spec.rayClusterSpec.authOptions.mode", "none"),
    ],
)
def test_the_schema_refuses_what_an_apply_would_lose(known: Known, path: str, value: Any) -> None:
    assert schema_errors(known, changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "cause"),
    [
        ("spec.rayClusterSpec.enableInTreeAutoscaling", True, "Kueue refuses"),
        ("spec.suspend", False, "Kueue owns"),
        ("spec.shutdownAfterJobFinishes", False, "shutdownAfterJobFinishes"),
        ("spec.submissionMode", "Sidecar", "submissionMode"),
        ("spec.rayClusterSpec.rayVersion", "2.50.0", "2.52"),
        ("metadata.name", "7b", "DNS-1035"),
    ],
)
def test_the_rules_refuse_what_only_the_operator_knows(path: str, value: Any, cause: str) -> None:
    assert any(cause in error for error in rule_errors(changed(path, value)))


@pytest.mark.parametrize("of", ["train", "evaluate"])
def test_who_starts_from_zero_waits_until_nodes_have_booted(of: str) -> None:
    entrypoint = load(TOP / f"cluster/kuberay/rayjob-{of}.yaml")["spec"]["entrypoint"]
    for option in re.findall(r"--cluster\.(?:startup_timeout_s|market_wait_s)", entrypoint):
        short = re.sub(rf" {re.escape(option)} \d+", "", entrypoint)
        assert [error for error in rule_errors(changed("spec.entrypoint", short, of)) if option in error]
    assert "--cluster.startup_timeout_s 3600" in entrypoint
    assert (of == "evaluate") == ("--cluster.market_wait_s 900" in entrypoint)


@pytest.mark.parametrize("group", ["headGroupSpec", "workerGroupSpecs.0"])
def test_a_pod_that_ends_before_a_stop_has_saved_is_refused(group: str) -> None:
    path = f"spec.rayClusterSpec.{group}.template.spec.terminationGracePeriodSeconds"
    assert any("before a stop has saved" in error for error in rule_errors(changed(path, 120)))


@pytest.mark.parametrize("path", [path for path in MANIFESTS if "train" in path.stem], ids=lambda path: path.stem)
def test_a_stop_of_a_training_may_take_as_long_as_the_plan_says(path: Path) -> None:
    """On the nodes that its workers fill, as `ecellm plan` is told by the comment beside the number."""
    text, spec = path.read_text(), load(path)["spec"]
    _, _, _, run_file, *overrides = spec["entrypoint"].replace("BUCKET", "bucket").split()
    run = load_run(str(TOP / run_file), overrides)
    [group] = spec["rayClusterSpec"]["workerGroupSpecs"]
    each = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    nodes, gpu = run.cluster.workers // each, group["labels"]["ray.io/accelerator-type"]
    seconds = plan(run, gpus=run.cluster.workers, nodes=nodes, gpu=gpu).stop_seconds
    said = f'"{seconds}" # `ecellm plan {run_file} --nodes {nodes} --gpus-per-node {each} --gpu {gpu}`: time to stop in'
    assert f"RAY_JOB_STOP_WAIT_TIME_S: {said}" in text


def test_the_cluster_that_stays_lets_each_stage_save() -> None:
    cluster = load(TOP / "cluster/kuberay/raycluster.yaml")["spec"]
    run = load_run(str(TOP / "jobs/runs/mistral_7b.toml"), [])  # the one that the file's head submits
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        least = 300 if group["labels"]["ecellm.io/role"] == "evaluate" else max(
            stop_seconds(run), plan(run, gpus=8, gpu="H100").stop_seconds
        )  # fmt: skip
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= least


def test_every_manifest_runs_as_an_ordinary_user_with_a_token_and_the_locked_ray() -> None:
    locked = next(
        line.partition("==")[2]
        for line in (TOP / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==")
    )
    for path in MANIFESTS:
        cluster = load(path)["spec"]
        cluster = cluster.get("rayClusterSpec", cluster)
        assert cluster["rayVersion"] == locked
        assert cluster["authOptions"]["mode"] == "token"
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_queue_is_the_one_that_the_job_names() -> None:
    documents = list(yaml.safe_load_all((TOP / "cluster/kuberay/kueue.yaml").read_text()))
    kinds = {one["kind"]: one["metadata"]["name"] for one in documents}
    job = load(TOP / "cluster/kuberay/rayjob-train-kueue.yaml")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == kinds["LocalQueue"]
    specs = {one["kind"]: one.get("spec", {}) for one in documents}
    assert specs["LocalQueue"]["clusterQueue"] == kinds["ClusterQueue"]
    [group] = specs["ClusterQueue"]["resourceGroups"]
    flavors = [one["metadata"] for one in documents if one["kind"] == "ResourceFlavor"]
    assert [one["name"] for one in group["flavors"]] == [one["name"] for one in flavors]
    quotas = {one["name"]: {of["name"]: of["nominalQuota"] for of in one["resources"]} for one in group["flavors"]}
    assert quotas["ecellm-cpu"]["nvidia.com/gpu"] == 0, "workers fit the second flavour only, the head the first"


def test_volcanos_names_are_shipped() -> None:
    documents = yaml.safe_load_all((TOP / "cluster/kuberay/volcano.yaml").read_text())
    kinds = {one["kind"]: one["metadata"]["name"] for one in documents}
    labels = load(TOP / "cluster/kuberay/rayjob-train-volcano.yaml")["metadata"]["labels"]
    assert labels["volcano.sh/queue-name"] == kinds["Queue"]
    assert labels["ray.io/priority-class-name"] == kinds["PriorityClass"]
