"""The wiring of the watcher on one screen: everything is started in order, and stopped in the reverse one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from core import damage
from core.decoding import Decoder, decoder_of
from core.gate import Gate
from core.hosts import KnownHosts
from core.metrics import decoder_deaths, measure_disk, service_registry
from core.ports import Catalog, Embedder, VectorStore
from watcher import jobs
from watcher.catalog import FolderCatalog, Parts
from watcher.homes import observer_of, pictures_of, vigil_of
from watcher.ingest import Ingest
from watcher.intake import Intake, IntakeEvents
from watcher.ledger import Ledger, ledger_of
from watcher.locks import ImageLocks
from watcher.metrics import IndexMetrics, IngestionMetrics
from watcher.models import Models
from watcher.pictures import Pictures
from watcher.reconcile import Reconciler, VectorCheck
from watcher.routes import make_app
from watcher.scanner import Scanner
from watcher.settings import WatcherSettings
from watcher.stability import SettleRules
from watcher.sweeper import Sweeper
from watcher.vigil import report_progress
from watcher.worker import Worker, WorkerLimits

log = structlog.get_logger()

_RESTART_PAUSE_S = 1.0


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
        recovered = await _recovered(ledger)
        readers = ThreadPoolExecutor(max(4, min(8, 2 * (os.cpu_count() or 2))), thread_name_prefix="folder")
        stack.callback(readers.shutdown)
        metrics = IngestionMetrics(registry or service_registry())
        decoder = stack.enter_context(decoder_of(settings, on_death=decoder_deaths(metrics.registry).inc))
        resources = stack.enter_context(ExitStack())
        pictures = pictures_of(settings, resources)
        parts = _assemble(settings, pictures, embedder, vectors, ledger, readers=readers, decoder=decoder, metrics=metrics)
        repairs = await ledger.run(lambda _: damage.repairs(settings.data_dir, settings.data_dir / "vectors"))
        catalog = FolderCatalog(parts, max_image_bytes=settings.max_image_bytes, repairs=repairs)
        measure_disk(metrics.registry, settings.data_dir)
        index = IndexMetrics(metrics.registry, vectors)
        gate = Gate(KnownHosts(listens_on=settings.host, allowed=settings.allowed_hosts))
        stack.push_async_callback(parts.sweeper.finish)
        await parts.models.begin()
        await _start(stack, settings, parts)
        stack.callback(catalog.note_draining)
        log.info("watcher_started", folder=pictures.name, observer=parts.observer.kind, images_recovered=recovered)
        yield RunningWatcher(catalog, make_app(catalog, metrics, index, gate))


async def _recovered(ledger: Ledger) -> int:
    """What is left over from a death is pending again: all that runs where nobody else can be at work, else what has no heart beating for it."""
    return await ledger.run(jobs.expire, ledger.now()) if ledger.is_shared else await ledger.run(jobs.recover)


def _assemble(
    settings: WatcherSettings,
    pictures: Pictures,
    embedder: Embedder,
    vectors: VectorStore,
    ledger: Ledger,
    *,
    readers: ThreadPoolExecutor,
    decoder: Decoder,
    metrics: IngestionMetrics,
) -> Parts:
    locks = ImageLocks()
    scanner = Scanner(pictures, ledger, readers, accept_new_folder=settings.accept_new_folder)

    def on_admitted() -> None:
        worker.wake()
        sweeper.wake()
        observer.note_change()

    def on_models_changed() -> None:
        reconciler.models_changed()

    def is_calm() -> bool:
        return intake.is_calm and not scanner.is_busy and not scanner.folder_missing

    def on_models_turned() -> None:
        worker.models_turned()

    def on_left() -> None:
        sweeper.wake()
        observer.note_change()

    intake = Intake(
        pictures,
        ledger,
        readers,
        rules=SettleRules(settle_s=settings.settle_s, truncated_after_s=settings.truncated_after_s),
        max_image_bytes=settings.max_image_bytes,
        events=IntakeEvents(
            admitted=on_admitted,
            left=on_left,
            refused=metrics.note_failed,
            scan=scanner.request,
            lost_mounts=scanner.lost,
        ),
    )
    sweeper = Sweeper(
        ledger,
        vectors,
        locks,
        orphan_grace_s=settings.orphan_grace_s,
        is_calm=is_calm,
    )
    check = VectorCheck(ledger, vectors, locks, points_per_s=settings.vectors_check_rate)
    models = Models(
        ledger,
        embedder,
        vectors,
        check,
        metrics,
        turned=on_models_turned,
        lacking=on_models_changed,
    )
    worker = Worker(
        ledger,
        Ingest(pictures, ledger, embedder, vectors, readers, decoder=decoder, metrics=metrics, recheck=intake.recheck),
        locks,
        metrics,
        models,
        limits=WorkerLimits(
            concurrency=settings.ingest_concurrency,
            max_attempts=settings.max_attempts,
            retry_min_s=settings.retry_min_s,
            retry_max_s=settings.retry_max_s,
            outage_retry_max_s=settings.outage_retry_max_s,
            lease_s=settings.lease_s,
        ),
        is_folder_missing=lambda: scanner.folder_missing,
        changed=sweeper.note_write,
        models_changed=on_models_changed,
    )
    reconciler = Reconciler(
        ledger,
        check,
        interval_s=settings.reconcile_interval_s,
        every_point_interval_s=settings.vectors_check_interval_s,
        scan=scanner.complete_scan,
        is_calm=is_calm,
        models=worker.models,
        mended=worker.wake,
    )
    observer = observer_of(pictures, settings, on_hints=intake.take, on_loss=scanner.request)
    return Parts(pictures, ledger, intake, scanner, reconciler, observer, worker, models, sweeper, metrics, readers)


async def _start(stack: AsyncExitStack, settings: WatcherSettings, parts: Parts) -> None:
    """Everything that runs. What stands first here ends last."""
    await stack.enter_async_context(parts.observer)
    await _run(stack, parts.sweeper.run, "sweeper")
    await _run(stack, parts.worker.beat, "heartbeat")
    stack.push_async_callback(parts.worker.drain, settings.shutdown_grace_s * 0.6)
    await _run(stack, parts.models.run, "models")
    await _run(stack, parts.worker.run, "worker")
    await _run(stack, parts.intake.run, "intake")
    await _run(stack, partial(parts.scanner.run, parts.intake), "scanner")
    vigil = vigil_of(parts.pictures, parts.ledger, parts.observer, parts.scanner)
    await vigil.begin()
    await _run(stack, vigil.run, "vigil")
    await _run(stack, parts.reconciler.run, "reconciler")
    await _run(stack, partial(report_progress, parts.ledger, parts.metrics), "progress")


async def _run(stack: AsyncExitStack, work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run a service until the stack unwinds."""
    task = asyncio.create_task(kept_alive(work, name), name=name)
    stack.push_async_callback(_cancel, task)


async def kept_alive(work: Callable[[], Awaitable[None]], name: str) -> None:
    """One that fails is a bug; it is told, and started again, since what it works on lies in the ledger and a deaf watcher helps nobody."""
    while True:
        try:
            await work()
        except Exception:
            log.critical("service_died", service=name, restart_in_s=_RESTART_PAUSE_S, exc_info=True)
        else:
            log.critical("service_ended", service=name, restart_in_s=_RESTART_PAUSE_S)
        await asyncio.sleep(_RESTART_PAUSE_S)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
