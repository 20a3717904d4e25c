"""The model service, wired: one engine behind a few routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from core.gate import Gate
from core.hosts import KnownHosts
from core.metrics import service_registry
from core.web import make_application, metrics_route
from model_service.draining import part_while_draining
from model_service.engine import Engine
from model_service.metrics import InferenceMetrics
from model_service.routes import DRAINING, ENGINE, REQUEST_TIMEOUT_S, routes
from model_service.served import Load
from model_service.settings import ModelSettings


def create_app(settings: ModelSettings, *, load: Load) -> web.Application:
    """An application that answers at once and loads in the background. `load` is `registry.load`, or a test's own."""
    registry = service_registry()
    gate = Gate(KnownHosts(listens_on=settings.host, allowed=settings.allowed_hosts))
    app = make_application(
        "model_service", registry, gate=gate, client_max_size=settings.max_image_bytes, routine=("/v1/models",)
    )
    app[REQUEST_TIMEOUT_S] = settings.request_timeout_s
    app[DRAINING] = asyncio.Event()
    app.on_response_prepare.append(part_while_draining)
    app.add_routes(routes)
    app.router.add_get("/metrics", metrics_route(registry))

    async def engine_context(app: web.Application) -> AsyncIterator[None]:
        async with Engine(settings, load=load, metrics=InferenceMetrics(registry)) as engine:
            app[ENGINE] = engine
            yield

    app.cleanup_ctx.append(engine_context)
    return app
