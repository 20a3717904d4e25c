"""From a signal to the end: whoever balances over model services hears of it before this one is gone, and what was taken is answered."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web

from core.serving import serving
from model_service.routes import DRAINING
from model_service.settings import ModelSettings

log = structlog.get_logger()


async def serve(
    app: web.Application, listener: socket.socket, settings: ModelSettings, *, until: Callable[[], Awaitable[None]]
) -> None:
    """Serve until then; go on for the time of draining while `/health/ready` says 503; then take no more, and end what was taken."""
    drain_s = min(settings.drain_s, settings.shutdown_grace_s)
    async with serving(app, listener, shutdown_grace_s=settings.shutdown_grace_s - drain_s):
        await until()
        app[DRAINING].set()
        log.info("model_service_draining", for_s=drain_s)
        await asyncio.sleep(drain_s)


async def part_while_draining(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: a connection that is closed after its answer is not one that breaks in the midst of the next request."""
    if request.app[DRAINING].is_set():
        response.headers[hdrs.CONNECTION] = "close"
        response.force_close()
