"""Launcher files as Ray and AWS read them: schema, parameters at every depth, instance types, policies that refuse."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecellm.storage.open import open_storage
from tests.cluster.autoscaled import shipped
from tests.cluster.head import token

TOP = Path(__file__).resolve().parents[2]
FILES = ("aws.yaml", "gcp.yaml")


@pytest.fixture(autouse=True)
def authentication() -> None:
    """Before Ray is imported here: a later switch has no effect on the tests that follow."""
    token()


@pytest.mark.parametrize("name", FILES)
def test_rays_own_validation_takes_it(name: str) -> None:
    config = shipped(name)
    kinds = config["available_node_types"]
    roles = {kind["labels"]["ecellm.io/role"] for kind in kinds.values()}
    assert roles == {"head", "build", "train", "evaluate"}
    for title, kind in kinds.items():
        spot = "spot" in title
        assert kind["labels"]["ray.io/market-type"] == ("spot" if spot else "on-demand")
        assert kind["min_workers"] == 0, "scales to zero"
        said = json.dumps(kind["node_config"])
        assert ("spot" in said.lower()) == spot
    assert kinds["head"]["resources"]["CPU"] == 0


@pytest.mark.parametrize("name", FILES)
def test_rays_are_started_with_a_token_and_none_is_stopped(name: str) -> None:
    config = yaml.safe_load((TOP / "cluster" / name).read_text())
    commands = [line for key, lines in config.items() if key.endswith("ray_commands") for line in lines]
    assert not any("ray stop" in line for line in commands)
    assert any("RAY_AUTH_MODE=token" in option for option in config["docker"]["run_options"])
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert "cluster watch" in config["worker_start_ray_commands"][-1]
    assert config["setup_commands"] == [], "left out, it fetches a nightly Ray"


@pytest.mark.parametrize("name", FILES)
def test_docker_takes_what_ray_makes_of_it(name: str) -> None:
    """Ray's own `docker run` line of each type: nothing is given twice that may be given once; home is the image's."""
    from ray.autoscaler._private.docker import docker_start_cmds

    config = shipped(name)
    home = re.search(r"(?m)^ENV HOME=(\S+)", (TOP / "cluster/Dockerfile").read_text())
    assert home
    for title, kind in config["available_node_types"].items():
        own = {**config["docker"], **kind.get("docker", {})}
        options = [*own.get("run_options", []), *own.get("worker_run_options", [])]
        line = docker_start_cmds("ray", own["image"], {}, own["container_name"], options, "ecellm", home[1], "docker")
        assert len(re.findall(r"--net(?:work)?[= ]", line)) == 1, title
        for option in ("--shm-size", "--ulimit nofile", "--ulimit memlock"):
            assert line.count(option) == 1, (title, option)
        assert "--env RAY_AUTH_MODE=token" in line


def test_the_containers_of_google_get_the_keys_of_s3_from_a_file_that_each_machine_fetches() -> None:
    """Without the file `docker run` ends; it is made by the commands that Ray runs before it."""
    config = yaml.safe_load((TOP / "cluster/gcp.yaml").read_text())
    [option] = [one for one in config["docker"]["run_options"] if one.startswith("--env-file ")]
    path = option.split()[1]
    assert path.startswith(f"/home/{config['auth']['ssh_user']}/")
    [fetch] = [line for line in config["initialization_commands"] if f">{path}" in line]
    said = (TOP / "cluster/README.md").read_text()
    [secret] = re.findall(r"--secret=(\S+)", fetch)
    assert f"gcloud secrets create {secret} " in said
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert f"{name}=" in said, name


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A mock of AWS; what was sent to RunInstances."""
    import botocore.client
    from moto import mock_aws

    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), "AWS_CONFIG_FILE": "/dev/null",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    sent: list[dict[str, Any]] = []
    call = botocore.client.BaseClient._make_api_call

    def spy(self: Any, operation: str, words: dict[str, Any]) -> Any:
        if operation == "RunInstances":
            sent.append(copy.deepcopy(words))
        return call(self, operation, words)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", spy)
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield sent


def filled(config: dict[str, Any]) -> dict[str, Any]:
    """The AWS file with what its capitals stand for, made in the mock."""
    import boto3

    ec2, iam = boto3.client("ec2"), boto3.client("iam")
    zone = config["provider"]["availability_zone"]
    subnet = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])["Subnets"][0]
    # A second one in the zone, which nobody asked for.
    ec2.create_subnet(VpcId=subnet["VpcId"], CidrBlock="172.31.240.0/20", AvailabilityZone=zone)
    group = ec2.create_security_group(GroupName="ecellm", Description="x", VpcId=subnet["VpcId"])["GroupId"]
    for name in ("ecellm-head", "ecellm-worker"):
        iam.create_instance_profile(InstanceProfileName=name)
    text = json.dumps(config)
    for capital, value in {
        "AMI-WITH-NVIDIA-DRIVER-EFA-AND-DOCKER": ec2.describe_images()["Images"][0]["ImageId"],
        "SECURITY-GROUP": group, "SUBNET": subnet["SubnetId"], "ACCOUNT": "123456789012",
    }.items():  # fmt: skip
        text = text.replace(capital, value)
    return dict(json.loads(text))


def test_resources_are_those_of_the_instance_types(cloud: Any) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = shipped("aws.yaml")
    bare = copy.deepcopy(config)
    for kind in bare["available_node_types"].values():
        kind["resources"] = {}
    known = AWSNodeProvider.fillout_available_node_types_resources(bare)["available_node_types"]
    for title, kind in config["available_node_types"].items():
        for name, amount in kind["resources"].items():
            if title != "head" and name in known[title]["resources"]:
                assert known[title]["resources"][name] == amount, f"{title}: {name}"


def test_ray_up_sends_what_was_meant(cloud: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Ray's bootstrap and node creation for every type; botocore refuses a misspelt key at any depth."""
    from ray.autoscaler._private.aws import config as aws_config
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

    monkeypatch.setattr(aws_config, "time", types.SimpleNamespace(sleep=lambda s: None, time=lambda: 0.0))
    config = filled(shipped("aws.yaml"))
    [subnet] = config["available_node_types"]["head"]["node_config"]["SubnetIds"]
    ready = AWSNodeProvider.bootstrap_config(config)
    provider = AWSNodeProvider(ready["provider"], "ecellm")
    for title, kind in ready["available_node_types"].items():
        node_config = dict(kind["node_config"])
        node_config.pop("Placement", None)  # moto knows no placement groups; checked below in what is shipped
        before = len(cloud)
        provider.create_node(node_config, {TAG_RAY_USER_NODE_TYPE: title, "ray-node-name": title}, 1)
        words = cloud[before]
        assert words["InstanceType"] == kind["node_config"]["InstanceType"]
        assert words["IamInstanceProfile"]["Arn"].endswith("head" if title == "head" else "worker"), title
        subnets = {words.get("SubnetId"), *(one["SubnetId"] for one in words.get("NetworkInterfaces", ()))} - {None}
        assert subnets == {subnet}, title
        assert (words.get("InstanceMarketOptions") == {"MarketType": "spot"}) == ("spot" in title)
        cards = {"train_p4d": 4, "train_p4d_spot": 4, "train_p5": 32}.get(title, 0)
        assert len(words.get("NetworkInterfaces", ())) == cards
        if cards:
            assert sorted(one["NetworkCardIndex"] for one in words["NetworkInterfaces"]) == list(range(cards))
            assert all(one["InterfaceType"].startswith("efa") for one in words["NetworkInterfaces"])
            assert "SecurityGroupIds" not in words
            assert kind["node_config"]["Placement"]["GroupName"]
    assert len(provider.non_terminated_nodes({})) == len(ready["available_node_types"])


def test_a_misspelt_key_is_refused(cloud: Any) -> None:
    from botocore.exceptions import ParamValidationError
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = filled(shipped("aws.yaml"))
    provider = AWSNodeProvider(config["provider"], "ecellm")
    wrong = {**config["available_node_types"]["eval_g5"]["node_config"], "InstanceMarketOption": {"MarketType": "spot"}}
    with pytest.raises(ParamValidationError, match="InstanceMarketOption"):
        provider.create_node({**wrong, "KeyName": "k"}, {"ray-node-name": "x"}, 1)


@pytest.mark.parametrize("path", sorted(TOP.glob("cluster/aws/*.json")), ids=lambda path: path.stem)
def test_each_json_is_json(path: Path) -> None:
    assert json.loads(path.read_text())


def test_the_bucket_takes_encryption_and_life_cycle(aws: str) -> None:
    import boto3

    client, bucket = boto3.client("s3"), f"b-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    folder = TOP / "cluster/aws"
    rules = json.loads((folder / "bucket-encryption.json").read_text())
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rules)
    life = json.loads((folder / "bucket-lifecycle.json").read_text())
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=life)
    open_storage(f"s3://{bucket}/run").write("checkpoint", b"weights")
    assert client.head_object(Bucket=bucket, Key="run/checkpoint")["ServerSideEncryption"] == "AES256"
    kept = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert any("AbortIncompleteMultipartUpload" in rule for rule in kept)
    assert not any("Expiration" in rule for rule in kept), "checkpoints that are whole never expire"


def test_roles_pull_the_image_and_the_head_names_its_own_machines_only() -> None:
    folder = TOP / "cluster/aws"
    pulls = json.loads((folder / "ecr-policy.json").read_text())
    assert allowed(pulls, "ecr:GetAuthorizationToken", "*")
    assert allowed(pulls, "ecr:BatchGetImage", "arn:aws:ecr:REGION:ACCOUNT:repository/ecellm")
    assert not allowed(pulls, "ecr:PutImage", "arn:aws:ecr:REGION:ACCOUNT:repository/ecellm")
    head = json.loads((folder / "head-policy.json").read_text())
    for statement in head["Statement"]:
        if "CreateTags" in str(statement["Action"]) or "Terminate" in str(statement["Action"]):
            assert statement["Condition"], "names or ends anybody's machine"


def test_the_workers_policy_allows_the_prefix_and_nothing_else() -> None:
    """Every S3 call that our storage makes, on the prefix and beside it, through a reading of the policy."""
    policy = json.loads(
        (TOP / "cluster/aws/worker-policy.json").read_text().replace("BUCKET", "b").replace("PREFIX", "p")
    )
    calls = ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload")
    for call in calls:
        assert allowed(policy, f"s3:{call}", "arn:aws:s3:::b/p/run/x")
        assert not allowed(policy, f"s3:{call}", "arn:aws:s3:::b/other/x")
        assert not allowed(policy, f"s3:{call}", "arn:aws:s3:::another/p/x")
    assert allowed(policy, "s3:ListMultipartUploadParts", "arn:aws:s3:::b/p/run/x")
    for call in ("s3:ListBucket", "s3:ListBucketMultipartUploads"):
        assert allowed(policy, call, "arn:aws:s3:::b", "p/run"), call
        assert not allowed(policy, call, "arn:aws:s3:::another", "p/run"), call
    assert not allowed(policy, "s3:ListBucket", "arn:aws:s3:::b", "other")
    for call in ("s3:DeleteBucket", "s3:PutBucketPolicy", "ec2:RunInstances", "iam:PassRole"):
        assert not allowed(policy, call, "arn:aws:s3:::b")


SUPPLIED = {"s3:ListBucket": {"s3:prefix"}}
"""Condition keys that AWS supplies with an action, by the Service Authorization Reference; with others none of ours."""


def allowed(policy: Any, action: str, resource: str, prefix: str = "") -> bool:
    """What IAM answers to these statements: an allow that matches action, resource and all conditions.

    A condition on a key that AWS does not supply with the action is never met.
    """

    def like(pattern: str, text: str) -> bool:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None

    known = {"s3:prefix": prefix}
    request = {key: known[key] for key in SUPPLIED.get(action, ())}
    for statement in policy["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        conditions = statement.get("Condition", {})
        assert set(conditions) <= {"StringLike"}, "an operator that is not read here"
        met = all(
            key in request and any(like(pattern, request[key]) for pattern in patterns)
            for key, patterns in conditions.get("StringLike", {}).items()
        )
        allows = statement["Effect"] == "Allow" and any(like(one, action) for one in actions)
        if allows and like(statement["Resource"], resource) and met:
            return True
    return False


def test_the_image_is_of_the_locked_versions_and_no_root() -> None:
    text = (TOP / "cluster/Dockerfile").read_text()
    assert re.search(r"(?m)^USER 1000:1000$", text)
    assert "-c constraints.txt" in text
    assert "RAY_AUTH_MODE=token" in text
    assert "RAY_AUTH_TOKEN=" not in text, "no secret in a layer"
    assert text.index("FLASH_ATTN_WHEEL") < text.index('test -n "$FLASH_ATTN_WHEEL"'), "left out, it is not forgotten"
    copied = re.findall(r"(?m)^COPY (?:--chown=\S+ )?(.+) \S+$", text)
    for path in " ".join(copied).split():
        assert (TOP / path).exists(), path


@pytest.mark.parametrize(
    "path", sorted([*TOP.glob("slurm/*.sh"), *TOP.glob("slurm/*.sbatch")]), ids=lambda path: path.name
)
def test_bash_reads_each_script(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
