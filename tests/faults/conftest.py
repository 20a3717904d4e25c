"""Fixtures of the fault tests: a seed that is told and can be set, and a product to be ill-treated."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.faults.rig import Rig
from tests.ram import ram_folder


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """FAULT_SEED=... makes the same choices again; what was taken is printed with a failure."""
    seed = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={seed}")
    return random.Random(f"{seed} {request.node.originalname}")


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ram_folder() as root, Rig(root) as instance:
        yield instance
