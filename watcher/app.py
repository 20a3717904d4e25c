"""The wiring of the watcher on one screen: everything is started in order, and stopped in the reverse one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

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
from watcher.routes import make_app
from watcher.services import run_in
from watcher.settings import WatcherSettings
from watcher.vigil import report_progress

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
        catalog = FolderCatalog(parts, post, max_image_bytes=settings.max_image_bytes, repairs=await _repairs(settings))
        measure_disk(metrics.registry, settings.data_dir)
        index = IndexMetrics(metrics.registry, vectors)
        gate = Gate(KnownHosts(listens_on=settings.host, allowed=settings.allowed_hosts))
        await run_in(stack, parts.worker.run, "worker")
        await stack.enter_async_context(post.man(partial(_notice, settings, parts)))
        await run_in(stack, partial(report_progress, ledger, metrics), "progress")
        stack.callback(catalog.note_draining)
        log.info("watcher_started", folder=parts.pictures.name, notices=post.has_watch, images_recovered=parts.recovered)
        yield RunningWatcher(catalog, make_app(catalog, metrics, index, gate))


async def _notice(settings: WatcherSettings, parts: Ingesting, stack: AsyncExitStack, ledger: Operations) -> Noticing:
    """What is done with the watch."""
    found = noticing(settings, parts, ledger)
    await start(stack, parts, found, ledger)
    return found


async def _repairs(settings: WatcherSettings) -> tuple[Repair, ...]:
    return await asyncio.to_thread(damage.repairs, settings.data_dir, settings.data_dir / "vectors")
