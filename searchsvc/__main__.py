"""The search service as a process of its own, beside a watcher, a model service and a Qdrant server."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import AsyncExitStack

import structlog
from pydantic import ValidationError

from core import logs
from core.catalog_client import CatalogClient
from core.errors import ImageSearchError
from core.metrics import service_registry
from core.replicas.addresses import embedder_at
from core.serving import serving, until_signalled
from core.settings import faults_of
from core.vectors.server import ServerStore
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings

log = structlog.get_logger()


async def serve(settings: SearchSettings, qdrant_url: str) -> None:
    async with AsyncExitStack() as stack:
        registry = service_registry()
        embedder = await stack.enter_async_context(embedder_at(settings.model_services, registry))
        catalog = await stack.enter_async_context(CatalogClient(settings.watcher_url))
        vectors = await stack.enter_async_context(ServerStore.of(settings, qdrant_url))
        app = create_app(settings, embedder=embedder, vectors=vectors, catalog=catalog, registry=registry)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = stack.enter_context(socket.create_server((settings.host, settings.port), family=family, backlog=1024))
        await stack.enter_async_context(serving(app, listener, shutdown_grace_s=settings.shutdown_grace_s))
        log.info("search_serving", host=settings.host, port=listener.getsockname()[1])
        await until_signalled()
        log.info("search_draining")


def main() -> int:
    try:
        settings = SearchSettings()
    except ValidationError as error:
        sys.stderr.write(f"The settings are not valid:\n{faults_of(error)}\n")
        return 2
    logs.configure(level=settings.log_level, log_format=settings.log_format, service="searchsvc")
    if settings.qdrant_url is None:
        log.error("qdrant_url_missing", advice="set QDRANT_URL, or run everything in one process tree: python -m standalone")
        return 2
    try:
        asyncio.run(serve(settings, settings.qdrant_url))
    except ImageSearchError as error:
        log.error("search_not_started", error=str(error))  # noqa: TRY400
        return 1
    except OSError as error:
        log.error("search_not_started", error=error.strerror or type(error).__name__, host=settings.host, port=settings.port)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
