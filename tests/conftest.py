"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from core.sql.place import DatabasePlace
from tests.postgres import PostgresServer, postgres_server, why_not

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server a session. Whoever restarts it leaves it running."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[DatabasePlace]:
    """An empty database in it."""
    name = f"test_{uuid4().hex}"
    yield DatabasePlace(postgres.make_database(name))
    postgres.drop_database(name)
