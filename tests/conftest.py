"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# A checkpoint is exported for the fastest runtime in half a minute: once for a user, but once for each test that makes its own.
# Tests of the runtimes name theirs; all others, and the processes that they start, compute in torch.
os.environ.setdefault("MODEL_RUNTIME", "torch")
os.environ.setdefault("MODEL_PRECISION", "fp32")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data folder: real photos and weights, never part of the repository."""
    named = os.environ.get("IMAGESEARCH_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the shared data folder: set IMAGESEARCH_SHARED")
    return folder
