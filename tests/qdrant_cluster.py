"""A stand-in for a Qdrant cluster: several addresses, one set of points behind them, and the troubles that nodes have.

What replicas and consensus do among themselves is not played; what they say to whoever asks is.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from aiohttp import web

from tests.qdrant_rest import PEER, Handler, Peer, RestQdrant


class Trouble(StrEnum):
    NONE = "none"
    TOO_FEW_REPLICAS = "refuses before anything is written"
    NOT_ACTIVE = "its shard is not available"
    UNACKNOWLEDGED = "written on some replicas, not on enough"
    NOTED = "took note of the write"
    WAIT_TIMEOUT = "did not see the write carried out in time"
    HANGS = "hangs"


WRITE_TROUBLES = [
    Trouble.TOO_FEW_REPLICAS,
    Trouble.NOT_ACTIVE,
    Trouble.UNACKNOWLEDGED,
    Trouble.NOTED,
    Trouble.WAIT_TIMEOUT,
]
_ERRORS = {
    Trouble.TOO_FEW_REPLICAS: (
        500,
        "Service internal error: The replica set for shard 0 on peer 1 does not have enough active replicas",
    ),
    Trouble.NOT_ACTIVE: (503, "Service unavailable: Shard 2 is not available: no active replica"),
    Trouble.UNACKNOWLEDGED: (500, "Service internal error: 1 of 3 replicas of shard 0 failed to apply the operation"),
}


class Node:
    """One address of the cluster."""

    def __init__(self, qdrant: RestQdrant, peer: Peer) -> None:
        self._qdrant = qdrant
        self._peer = peer
        self._runner: web.AppRunner | None = None
        self._port = 0
        self.trouble = Trouble.NONE
        self.troubled = 0
        """Calls that met its trouble."""
        self.asked = 0
        self._ended = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """On the port that it had before, if it had one."""
        self._ended.clear()
        app = self._qdrant.app(self._meet)
        app[PEER] = self._peer
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """At once: calls under way are broken off."""
        self._ended.set()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    @web.middleware
    async def _meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.asked += 1
        if self.trouble is Trouble.NONE or (self.trouble is not Trouble.HANGS and "/points" not in request.path):
            return await handler(request)
        self.troubled += 1
        return await self._suffer(request, handler)

    async def _suffer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        match self.trouble:
            case Trouble.HANGS:
                await self._ended.wait()
                raise web.HTTPServiceUnavailable
            case Trouble.UNACKNOWLEDGED | Trouble.TOO_FEW_REPLICAS | Trouble.NOT_ACTIVE:
                if self.trouble is Trouble.UNACKNOWLEDGED:
                    await handler(request)
                status, message = _ERRORS[self.trouble]
                return web.json_response({"status": {"error": message}, "time": 0.0}, status=status)
            case _:
                answer = await handler(request)
                said = "acknowledged" if self.trouble is Trouble.NOTED else "wait_timeout"
                is_write = request.method == "PUT" or request.path.endswith(("/payload", "/delete"))
                return web.json_response({"result": {"status": said}, "status": "ok", "time": 0.0}) if is_write else answer


class Cluster:
    def __init__(self, qdrant: RestQdrant, nodes: list[Node]) -> None:
        self.qdrant = qdrant
        self.nodes = nodes

    @property
    def urls(self) -> str:
        return ",".join(node.url for node in self.nodes)


async def restart_now_and_then(cluster: Cluster, chance: random.Random, done: asyncio.Event) -> int:
    """One node at a time is away, or in trouble, for a moment. Returns how often."""
    times = 0
    while not done.is_set():
        node = chance.choice(cluster.nodes)
        trouble = chance.choice([None, None, *WRITE_TROUBLES])
        if trouble is None:
            await node.stop()
        else:
            node.trouble = trouble
        times += 1
        await asyncio.sleep(chance.uniform(0.02, 0.1))
        node.trouble = Trouble.NONE
        if trouble is None:
            await node.start()
        await asyncio.sleep(chance.uniform(0.05, 0.3))
    return times


@asynccontextmanager
async def qdrant_cluster(nodes: int = 3) -> AsyncIterator[Cluster]:
    qdrant = RestQdrant()
    cluster = Cluster(qdrant, [Node(qdrant, Peer(number, nodes)) for number in range(nodes)])
    try:
        for node in cluster.nodes:
            await node.start()
        yield cluster
    finally:
        for node in cluster.nodes:
            await node.stop()
        await qdrant.close()
