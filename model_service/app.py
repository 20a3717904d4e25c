"""The wiring of the model service, on one screen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector

from core.decode import DecodeLimits
from core.web import HttpMetrics, error_middleware, metrics_route
from model_service import registry as profile_registry
from model_service.analysis import Bounds
from model_service.engine import Engine, Timing
from model_service.metrics import ModelMetrics
from model_service.routes import MODELS, Models, routes
from model_service.settings import ModelSettings


def create_app(models: Models, *, metrics: CollectorRegistry, max_image_bytes: int) -> web.Application:
    """The application over a ready or loading engine."""
    # a body of exactly the limit is allowed
    app = web.Application(
        middlewares=[error_middleware(HttpMetrics(metrics, "model_service"))], client_max_size=max_image_bytes + 1
    )
    app[MODELS] = models
    app.add_routes(routes())
    app.add_routes([web.get("/metrics", metrics_route(metrics))])
    return app


def create_engine(settings: ModelSettings, *, metrics: CollectorRegistry, on_hang: Callable[[], None]) -> Engine:
    cores = os.cpu_count() or 1
    choice = profile_registry.Choice(
        profile=settings.model_profile,
        models_dir=settings.models_dir,
        clip_model=settings.clip_model,
        image_model=settings.image_model,
        segmenter=settings.segmenter,
        device=settings.model_device,
        threads=settings.model_threads,
        hub_timeout_s=settings.hub_timeout_s,
        max_segments=settings.max_segments,
        min_score=settings.segment_min_score,
    )
    bounds = Bounds(
        limits=DecodeLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
        embed_batch=settings.embed_batch,
        segment_batch=settings.segment_batch,
        queue_limit=settings.queue_limit,
        max_segments=settings.max_segments,
        cpu_threads=max(1, min(4, cores)),
    )
    return Engine(
        partial(profile_registry.load, choice),
        requested_profile=settings.model_profile,
        bounds=bounds,
        timing=Timing(request_timeout_s=settings.request_timeout_s),
        observer=ModelMetrics(metrics),
        on_hang=on_hang,
    )


def application(settings: ModelSettings, *, on_hang: Callable[[], None]) -> web.Application:
    """The service as it runs: the engine starts with the application, which serves while it loads."""
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    engine = create_engine(settings, metrics=metrics, on_hang=on_hang)
    app = create_app(engine, metrics=metrics, max_image_bytes=settings.max_image_bytes)

    async def running(_: web.Application) -> AsyncIterator[None]:
        async with engine:
            yield

    app.cleanup_ctx.append(running)
    return app
