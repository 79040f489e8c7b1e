"""Made-up OUT folders, written once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from tests.report.fake import fake_out


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    at = tmp_path_factory.mktemp("report")
    return fake_out(at / "out"), fake_out(at / "second", seed=2, name="second")


@pytest.fixture
def out(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "out"))


@pytest.fixture
def second(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "second"))
