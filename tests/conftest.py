"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference scores beside the repository; the test skips where it is absent."""
    folder = Path(os.environ.get("ECELLM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder}: no shared data here (set ECELLM_SHARED)")
    return folder
