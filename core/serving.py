"""From an application and a socket to a service that answers, until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from core.connections import Connections
from core.pace import PaceLimits

if TYPE_CHECKING:
    import socket

_BACKLOG = 1024
MOST_CONNECTIONS = 512
"""Below the 1,024 files that a process may open by default, with room for what else is open."""


@asynccontextmanager
async def serving(
    app: web.Application,
    listener: socket.socket,
    *,
    shutdown_grace_s: float,
    most_connections: int = MOST_CONNECTIONS,
    pace: PaceLimits | None = None,
) -> AsyncIterator[None]:
    """Serve `app` on a bound socket for as long as the context lasts; requests in flight get the grace time to end."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_grace_s, handler_cancellation=True)
    await runner.setup()
    server = None
    try:
        if runner.server is None:
            raise RuntimeError("the application did not start")
        connections = Connections(runner.server, most=most_connections, limits=pace or PaceLimits())
        server = await asyncio.get_running_loop().create_server(connections, sock=listener, backlog=_BACKLOG)
        async with connections.watched():
            yield
    finally:
        if server is not None:
            server.close()
        await runner.cleanup()


async def until_signalled() -> None:
    """Wait for SIGINT or SIGTERM. A second one ends the process at once, as people expect of a second Ctrl-C."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()

    def on_signal() -> None:
        if signalled.is_set():
            os._exit(130)
        signalled.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    await signalled.wait()
