from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.queue import rabbit
from tests.queue.rabbit import Rabbit, rabbit_node
from tests.queue.rig import BrokerServer, Redis, why_not


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


@pytest.fixture(scope="session")
def _node() -> Iterator[Rabbit]:
    """One a session: it takes seconds to start."""
    if (reason := rabbit.why_not()) is not None:
        pytest.skip(reason)
    with rabbit_node() as node:
        yield node


@pytest.fixture
def rabbitmq(_node: Rabbit) -> Rabbit:
    """As new, and running."""
    if not _node.is_running:
        _node.start()
    _node.flush()
    return _node


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> BrokerServer:
    """Either broker, empty."""
    found: BrokerServer = request.getfixturevalue(request.param)
    return found
