from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.queue.rig import Redis, why_not


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """An empty one."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    server = Redis(tmp_path / "redis.log").start()
    try:
        yield server
    finally:
        if server.is_running:
            server.end()
