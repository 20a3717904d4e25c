"""Watcher and search service in one process: who is made of what, started in order and released in reverse (`launch` comes before)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import structlog

from core.errors import ImageSearchError, Unavailable
from core.model_client import ModelClient
from core.ports import Embedder, VectorStore
from core.schemas import EngineState, ModelsInfo
from core.serving import serving, until_signalled
from core.vectors.edge import EdgeStore
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from standalone.listeners import url_of
from standalone.progress import draw_progress
from standalone.settings import StandaloneSettings
from standalone.telling import tell
from watcher.app import running_watcher
from watcher.settings import WatcherSettings

log = structlog.get_logger()


class SharedByHalf(ImageSearchError):
    """The ledger would be that of all, and the vectors those of this process alone."""


async def run(
    settings: StandaloneSettings,
    watcher_settings: WatcherSettings,
    search_settings: SearchSettings,
    *,
    public: socket.socket,
    watcher_listener: socket.socket,
    model_url: str,
) -> None:
    """Start watcher and search service beside the model service's process, say where they are, and run until a signal."""
    async with AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(ModelClient(model_url))
        vectors = await stack.enter_async_context(_vectors(watcher_settings))
        watcher = await stack.enter_async_context(running_watcher(watcher_settings, embedder, vectors))
        search_app = create_app(search_settings, embedder=embedder, vectors=vectors, catalog=watcher.catalog)

        await stack.enter_async_context(serving(watcher.app, watcher_listener, shutdown_grace_s=1.0))
        await stack.enter_async_context(serving(search_app, public, shutdown_grace_s=2.0))
        announcement = _announce(embedder, url_of(public), images=watcher_settings.images_url or str(watcher_settings.images_dir))
        await stack.enter_async_context(_in_background(announcement))
        if sys.stderr.isatty() and not settings.no_progress:
            await stack.enter_async_context(_in_background(draw_progress(watcher.catalog)))
        await until_signalled()
        tell("Stopping: work in flight is being finished")
    log.info("standalone_stopped")


def _vectors(settings: WatcherSettings) -> AbstractAsyncContextManager[VectorStore]:
    if settings.qdrant_url is None:
        if settings.database_url is not None:
            raise SharedByHalf("DATABASE_URL is for processes that share their vectors as well: set QDRANT_URL, or unset both")
        return EdgeStore(settings.data_dir / "vectors", storage=settings.vector_storage)
    from core.vectors.server import ServerStore  # noqa: PLC0415 - half of all imports and 60 MB, for those alone who have a server

    return ServerStore.of(settings, settings.qdrant_url)


async def _announce(embedder: Embedder, url: str, *, images: str) -> None:
    """Say once that it can be used, as soon as the models are there or are known to be missing."""
    tell(f"Loading models; the page is already at {url}")
    models = await _models_when_known(embedder)
    if models.notice:
        tell(f"Note: {models.notice}")
    names = ", ".join(card.model_name for card in models.models) or "no model"
    tell(f"Ready: {url} - watching {images} with {names} (Ctrl-C ends)")


async def _models_when_known(embedder: Embedder) -> ModelsInfo:
    while True:
        with suppress(Unavailable):
            models = await embedder.info()
            if models.state is not EngineState.LOADING:
                return models
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _in_background(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
