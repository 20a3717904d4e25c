"""The whole product in one process tree: who is made of what, started in order and released in reverse."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import structlog

from core.errors import Unavailable
from core.model_client import ModelClient
from core.ports import Embedder, VectorStore
from core.schemas import EngineState, ModelsInfo
from core.vectors.edge import EdgeStore
from core.vectors.server import ServerStore
from core.web import serving, until_signalled
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from standalone.listeners import LOOPBACK, bind, bind_near, url_of
from standalone.model_process import ModelProcess, child_environment
from standalone.progress import draw_progress
from standalone.settings import StandaloneSettings
from watcher.app import running_watcher
from watcher.settings import WatcherSettings

log = structlog.get_logger()

_MODEL_STOP_GRACE_S = 2.0


async def run(settings: StandaloneSettings) -> None:
    """Start everything, say where it is, and run until a signal. Raises AddressInUse, and the settings' ValidationError."""
    watcher_settings, search_settings = WatcherSettings(), SearchSettings()
    watcher_settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        public = bind(settings.host, settings.port)
        model_listener, watcher_listener = bind_near(settings.model_port), bind_near(settings.watcher_port)
        for listener in (public, model_listener, watcher_listener):
            stack.callback(listener.close)

        model_url = url_of(model_listener)
        environment = child_environment(host=LOOPBACK, port=model_listener.getsockname()[1])
        await stack.enter_async_context(ModelProcess(model_listener, environment=environment, stop_grace_s=_MODEL_STOP_GRACE_S))
        embedder = await stack.enter_async_context(ModelClient(model_url))
        vectors = await stack.enter_async_context(_vectors(watcher_settings))
        watcher = await stack.enter_async_context(running_watcher(watcher_settings, embedder, vectors))
        search_app = create_app(search_settings, embedder=embedder, vectors=vectors, catalog=watcher.catalog)

        await stack.enter_async_context(serving(watcher.app, watcher_listener, shutdown_grace_s=1.0))
        await stack.enter_async_context(serving(search_app, public, shutdown_grace_s=2.0))
        announcement = _announce(embedder, url_of(public), images=str(watcher_settings.images_dir))
        await stack.enter_async_context(_in_background(announcement))
        if sys.stderr.isatty() and not settings.no_progress:
            await stack.enter_async_context(_in_background(draw_progress(watcher.catalog)))
        await until_signalled()
        print("Stopping: work in flight is being finished", flush=True)
    log.info("standalone_stopped")


def _vectors(settings: WatcherSettings) -> AbstractAsyncContextManager[VectorStore]:
    if settings.qdrant_url is None:
        return EdgeStore(settings.data_dir / "vectors")
    return ServerStore.of(settings, settings.qdrant_url)


async def _announce(embedder: Embedder, url: str, *, images: str) -> None:
    """Say once that it can be used, as soon as the models are there or are known to be missing."""
    print(f"Loading models; the page is already at {url}", flush=True)
    models = await _models_when_known(embedder)
    if models.notice:
        print(f"Note: {models.notice}", flush=True)
    names = ", ".join(card.model_name for card in models.models) or "no model"
    print(f"Ready: {url} - watching {images} with {names} (Ctrl-C ends)", flush=True)


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
