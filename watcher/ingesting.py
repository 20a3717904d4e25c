"""What ingests: any number of processes may, each with leases of its own, beside the one that notices."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from core.decoding import decoder_of
from core.errors import Unavailable
from core.metrics import decoder_deaths
from core.ports import Embedder, VectorStore
from watcher import jobs
from watcher.homes import pictures_of
from watcher.ingest import Ingest
from watcher.ledger import Ledger
from watcher.locks import ImageLocks
from watcher.metrics import IngestionMetrics
from watcher.models import Models
from watcher.pictures import Pictures
from watcher.reconcile import VectorCheck
from watcher.services import run_in
from watcher.settings import WatcherSettings
from watcher.worker import Worker, WorkerLimits


class Lookout(Protocol):
    """Whoever notices, as ingestion knows it."""

    @property
    def has_watch(self) -> bool:
        """Whether that is this process."""
        ...

    @property
    def folder_missing(self) -> bool: ...

    def recheck(self, path: str) -> None:
        """The file at this path is not what the ledger says."""

    def note_write(self) -> None:
        """Points were written, or an image ended."""

    def look_at_every_point(self) -> None:
        """Collections may have changed, or lack points."""


class Elsewhere:
    """The lookout of a process that only ingests: the one that notices finds by itself what there is to find."""

    has_watch = False
    folder_missing = False

    def recheck(self, path: str) -> None: ...

    def note_write(self) -> None: ...

    def look_at_every_point(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ingesting:
    """Ready to ingest: leases are renewed and the models' course is followed. Who runs `worker.run` claims whatever is pending."""

    pictures: Pictures
    ledger: Ledger
    embedder: Embedder
    vectors: VectorStore
    locks: ImageLocks
    metrics: IngestionMetrics
    models: Models
    ingest: Ingest
    worker: Worker
    readers: Executor
    recovered: int


@asynccontextmanager
async def ingesting(
    settings: WatcherSettings,
    embedder: Embedder,
    vectors: VectorStore,
    *,
    ledger: Ledger,
    metrics: IngestionMetrics,
    lookout: Lookout,
) -> AsyncIterator[Ingesting]:
    """`ledger` is entered. At the end, what is in flight ends in time or is given back."""
    async with AsyncExitStack() as stack:
        readers = ThreadPoolExecutor(max(4, min(8, 2 * (os.cpu_count() or 2))), thread_name_prefix="folder")
        stack.callback(readers.shutdown)
        decoder = stack.enter_context(decoder_of(settings, on_death=decoder_deaths(metrics.registry).inc))
        stack.push_async_callback(_flushed, vectors)
        pictures, locks = pictures_of(settings, stack.enter_context(ExitStack())), ImageLocks(beyond=ledger.hold)

        def turned() -> None:
            worker.models_turned()

        models = Models(
            ledger,
            embedder,
            vectors,
            VectorCheck(ledger, vectors, locks),
            metrics,
            turned=turned,
            lacking=lookout.look_at_every_point,
            is_leading=lambda: lookout.has_watch,
        )
        ingest = Ingest(pictures, ledger, embedder, vectors, readers, decoder=decoder, metrics=metrics, recheck=lookout.recheck)
        worker = Worker(
            ledger,
            ingest,
            locks,
            metrics,
            models,
            limits=_limits(settings),
            is_folder_missing=lambda: lookout.folder_missing,
            changed=lookout.note_write,
            models_changed=lookout.look_at_every_point,
        )
        recovered = await _recovered(ledger)
        await models.begin()
        await run_in(stack, worker.beat, "heartbeat")
        stack.push_async_callback(worker.drain, settings.shutdown_grace_s * 0.6)
        await run_in(stack, models.run, "models")
        yield Ingesting(pictures, ledger, embedder, vectors, locks, metrics, models, ingest, worker, readers, recovered)


def _limits(settings: WatcherSettings) -> WorkerLimits:
    return WorkerLimits(
        concurrency=settings.ingest_concurrency,
        max_attempts=settings.max_attempts,
        retry_min_s=settings.retry_min_s,
        retry_max_s=settings.retry_max_s,
        outage_retry_max_s=settings.outage_retry_max_s,
        lease_s=settings.lease_s,
    )


async def _recovered(ledger: Ledger) -> int:
    """What is left over from a death is pending again: all that runs where nobody else can be at work, else what no heart beats for."""
    return await ledger.run(jobs.expire, ledger.now()) if ledger.is_shared else await ledger.run(jobs.recover)


async def _flushed(vectors: VectorStore) -> None:
    """Everything written so far survives a power cut."""
    with suppress(Unavailable):
        await vectors.flush()
