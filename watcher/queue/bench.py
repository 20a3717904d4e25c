"""Where a worker process ingests: an event loop in a thread of its own, which Celery's threads bring their tasks to."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog

from core import tracing
from core.gate import Gate
from core.hosts import KnownHosts
from core.metrics import service_registry
from core.replicas.addresses import embedder_at
from core.serving import serving
from core.vectors.server import ServerStore
from watcher.ingesting import Elsewhere, Ingesting, ingesting
from watcher.ledger import ledger_of
from watcher.metrics import IngestionMetrics
from watcher.queue.broker import Broker
from watcher.queue.place import BrokerPlace
from watcher.queue.routes import make_app
from watcher.settings import WatcherSettings

log = structlog.get_logger()


class Bench:
    """`open` in one thread, `ingest` in any, `close` in whichever is told of the end."""

    def __init__(self, settings: WatcherSettings, place: BrokerPlace, qdrant_url: str) -> None:
        self._settings = settings
        self._place = place
        self._qdrant_url = qdrant_url
        self._ended = asyncio.Event()
        self._opened: Future[tuple[asyncio.AbstractEventLoop, Ingesting]] = Future()
        self._thread = threading.Thread(target=self._run, name="ingestion")
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Returns when it can ingest. Raises ImageSearchError, OSError."""
        self._thread.start()
        self._opened.result()

    def ingest(self, image_id: str, traceparent: str) -> None:
        """Returns when the image is ingested, or was given back, or there is nothing to do. Raises CancelledError after the end."""
        loop, parts = self._opened.result()
        work = self._ingest(parts, image_id, traceparent)
        try:
            asyncio.run_coroutine_threadsafe(work, loop).result()
        except RuntimeError:  # the loop is closed
            work.close()
            raise asyncio.CancelledError from None

    def close(self) -> None:
        """Nothing new is begun; what is in flight ends in time, or is given back."""
        if self._opened.done() and self._opened.exception() is None:
            loop, _ = self._opened.result()
            with suppress(RuntimeError):  # it is closed already
                loop.call_soon_threadsafe(self._ended.set)

    def join(self) -> None:
        self._thread.join()

    # --- on the loop

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._opened.done():
                log.exception("bench_failed")
            else:
                self._opened.set_exception(error)

    async def _serve(self) -> None:
        async with self._parts() as parts:
            log.info("worker_started", concurrency=self._settings.ingest_concurrency)
            self._opened.set_result((asyncio.get_running_loop(), parts))
            await self._ended.wait()
            for task in self._tasks:  # an image that is in flight goes on without its task
                task.cancel()
            log.info("worker_drains", tasks=len(self._tasks))

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[Ingesting]:
        settings = self._settings
        async with AsyncExitStack() as stack:
            listener = stack.enter_context(socket.create_server((settings.host, settings.port)))
            registry = service_registry()
            embedder = await stack.enter_async_context(embedder_at(settings.model_services, registry))
            vectors = await stack.enter_async_context(ServerStore.of(settings, self._qdrant_url))
            ledger = await stack.enter_async_context(ledger_of(settings))
            metrics = IngestionMetrics(registry)
            parts = await stack.enter_async_context(
                ingesting(settings, embedder, vectors, ledger=ledger, metrics=metrics, lookout=Elsewhere())
            )
            broker = await stack.enter_async_context(Broker(self._place))
            gate = Gate(KnownHosts(listens_on=settings.host, allowed=settings.allowed_hosts))
            await stack.enter_async_context(
                serving(make_app(parts.worker, metrics, broker, gate), listener, shutdown_grace_s=1.0)
            )
            yield parts

    async def _ingest(self, parts: Ingesting, image_id: str, traceparent: str) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs
        if self._ended.is_set():
            raise asyncio.CancelledError
        self._tasks.add(task)
        try:
            with tracing.within(tracing.continued([traceparent])):
                await parts.worker.ingest(image_id)
        finally:
            self._tasks.discard(task)
