"""The lock file as a check of what is installed, and as a runtime environment."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from ecellm.cluster.lock import WATCHED, check, pins, runtime_pip
from ecellm.errors import ClusterError, ConfigError


def test_this_environment_is_the_locked_one(top: Path) -> None:
    check(str(top))


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    here = metadata.version("pydantic")
    (tmp_path / "constraints.txt").write_text("# lock\npydantic==0.1\nray==9.9 # later\n")
    with pytest.raises(ClusterError, match=rf"ray .*locked 9.9; pydantic {here}, locked 0.1"):
        check(str(tmp_path))


def test_a_build_of_a_version_is_that_version(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text(f"torch=={metadata.version('torch').partition('+')[0]}\n")
    check(str(tmp_path))


def test_every_watched_package_is_locked(top: Path) -> None:
    assert set(WATCHED) <= set(pins(str(top)))


def test_the_runtime_environment_leaves_ray_to_the_cluster(top: Path) -> None:
    packages = runtime_pip(str(top))["packages"]
    assert isinstance(packages, list)
    assert any(one.startswith("torch==") for one in packages)
    assert not any(one.startswith("ray==") for one in packages)


def test_a_folder_without_a_lock_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"constraints\.txt"):
        pins(str(tmp_path))
