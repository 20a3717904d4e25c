"""`python -m watcher`: the watcher as a process of its own, beside a Qdrant server and the model service."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import AsyncExitStack

from pydantic import ValidationError

from core import logs
from core.errors import ImageSearchError
from core.metrics import service_registry
from core.replicas.addresses import embedder_at
from core.serving import serving, until_signalled
from core.settings import faults_of
from core.vectors.server import ServerStore
from watcher.app import running_watcher
from watcher.settings import WatcherSettings


async def _serve(settings: WatcherSettings, qdrant_url: str) -> None:
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server((settings.host, settings.port)))
        registry = service_registry()
        embedder = await stack.enter_async_context(embedder_at(settings.model_services, registry))
        vectors = await stack.enter_async_context(ServerStore.of(settings, qdrant_url))
        watcher = await stack.enter_async_context(running_watcher(settings, embedder, vectors, registry=registry))
        await stack.enter_async_context(serving(watcher.app, listener, shutdown_grace_s=1.0))
        await until_signalled()


def main() -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code."""
    try:
        settings = WatcherSettings()
    except ValidationError as error:
        print(f"the settings are not usable:\n{faults_of(error)}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    logs.configure(level=settings.log_level, log_format=settings.log_format, service="watcher")
    if settings.qdrant_url is None:
        print(  # noqa: T201 - for the person at the terminal
            "the watcher by itself needs a Qdrant server: set QDRANT_URL, or run everything in one: python -m standalone",
            file=sys.stderr,
        )
        return 2
    try:
        asyncio.run(_serve(settings, settings.qdrant_url))
    except (ImageSearchError, OSError) as error:
        print(f"the watcher cannot start: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
