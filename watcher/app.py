"""The wiring of the watcher on one screen: everything is started in order, and stopped in the reverse one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from core import damage
from core.gate import Gate
from core.hosts import KnownHosts
from core.metrics import measure_disk, service_registry
from core.ports import Catalog, Embedder, VectorStore
from core.schemas import Repair
from watcher.catalog import FolderCatalog
from watcher.ingesting import Ingesting, ingesting
from watcher.ledger import Ledger, Operations, ledger_of
from watcher.metrics import IndexMetrics, IngestionMetrics
from watcher.noticing import Noticing, noticing, start
from watcher.post import Post
from watcher.queue.metrics import QueueMetrics
from watcher.routes import make_app
from watcher.services import run_in
from watcher.settings import WatcherSettings
from watcher.vigil import report_progress

if TYPE_CHECKING:
    from watcher.queue.enqueuer import Enqueuer

log = structlog.get_logger()


class RunningWatcher(NamedTuple):
    """What the watcher offers to its host: the catalog for the search service beside it, and the app for HTTP."""

    catalog: Catalog
    app: web.Application


@asynccontextmanager
async def running_watcher(
    settings: WatcherSettings,
    embedder: Embedder,
    vectors: VectorStore,
    *,
    ledger: Ledger | None = None,
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[RunningWatcher]:
    """Watch and ingest for as long as the context lasts; models and vectors may come later. Raises LedgerInUse, NewerRelease.

    `registry` is one that the ports count in, where they do.
    """
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(ledger or ledger_of(settings))
        metrics = IngestionMetrics(registry or service_registry())
        post = Post(ledger)
        parts = await stack.enter_async_context(
            ingesting(settings, embedder, vectors, ledger=ledger, metrics=metrics, lookout=post)
        )
        enqueuer = await _enqueuer(settings, stack, metrics)
        catalog = FolderCatalog(parts, post, max_image_bytes=settings.max_image_bytes, repairs=await _repairs(settings))
        measure_disk(metrics.registry, settings.data_dir)
        index = IndexMetrics(metrics.registry, vectors)
        gate = Gate(KnownHosts(listens_on=settings.host, allowed=settings.allowed_hosts))
        if enqueuer is None:
            await run_in(stack, parts.worker.run, "worker")
        await stack.enter_async_context(post.man(partial(_notice, settings, parts, enqueuer)))
        await run_in(stack, partial(report_progress, ledger, metrics), "progress")
        stack.callback(catalog.note_draining)
        log.info("watcher_started", folder=parts.pictures.name, notices=post.has_watch, images_recovered=parts.recovered)
        yield RunningWatcher(catalog, make_app(catalog, metrics, index, gate))


async def _notice(
    settings: WatcherSettings, parts: Ingesting, enqueuer: Enqueuer | None, stack: AsyncExitStack, ledger: Operations
) -> Noticing:
    """What is done with the watch."""
    found = noticing(settings, parts, ledger)
    await start(stack, parts, found, ledger)
    if enqueuer is not None:
        await run_in(stack, partial(enqueuer.run, parts.worker, ledger), "enqueuer")
    return found


async def _enqueuer(settings: WatcherSettings, stack: AsyncExitStack, metrics: IngestionMetrics) -> Enqueuer | None:
    """None: what is noticed is ingested here. Raises QueueMissing."""
    place = settings.broker
    if place is None:
        return None
    from watcher.queue.broker import Broker  # noqa: PLC0415 - its package is there only where it is wanted
    from watcher.queue.enqueuer import Enqueuer  # noqa: PLC0415 - as above

    broker = await stack.enter_async_context(Broker(place))
    return Enqueuer(broker, QueueMetrics(metrics.registry), metrics, rate_per_s=place.rate_per_s)


async def _repairs(settings: WatcherSettings) -> tuple[Repair, ...]:
    return await asyncio.to_thread(damage.repairs, settings.data_dir, settings.data_dir / "vectors")
