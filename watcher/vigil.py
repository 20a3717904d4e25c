"""Keeps an eye on the watching itself: a watch that went deaf is set up anew, and what it missed is looked for."""

from __future__ import annotations

import asyncio

import structlog

from watcher import locations, views
from watcher.folder import Folder
from watcher.ledger import Operations
from watcher.metrics import IngestionMetrics
from watcher.observer import FolderObserver
from watcher.scanner import Scanner

log = structlog.get_logger()

_PERIOD_S = 2.0
_PROGRESS_PERIOD_S = 10.0


class Vigil:
    """The folder may be missing, vanish, come back, or be replaced by another one of the same name."""

    def __init__(self, folder: Folder, ledger: Operations, observer: FolderObserver, scanner: Scanner) -> None:
        self._folder = folder
        self._ledger = ledger
        self._observer = observer
        self._scanner = scanner
        self._identity: tuple[int, int] | None = None
        self._refused: str | None = None

    async def begin(self) -> None:
        """Make the folder if nothing was ever known in it, and watch it if it is there; the first scan is the reconcile's."""
        if not await self._ledger.run(locations.has_below, ""):
            await asyncio.to_thread(self._folder.root.mkdir, parents=True, exist_ok=True)
        self._identity = await asyncio.to_thread(self._identify)
        if self._identity is not None:
            await self._watch()

    async def run(self) -> None:
        """Look every now and then, for ever."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                await self._look()
            except Exception:
                log.exception("vigil_failed")

    async def _look(self) -> None:
        identity = await asyncio.to_thread(self._identify)
        if identity == self._identity and (identity is None or not self._observer.is_deaf):
            if self._scanner.folder_missing:
                self._scanner.request()  # it may have come back
            return
        if identity is None:
            await self._observer.stop()
        else:
            await self._watch()
        self._identity = identity
        self._scanner.request()

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = self._folder.root.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def _watch(self) -> None:
        try:
            await self._observer.restart()
        except OSError as error:
            if self._refused != str(error):
                log.warning("folder_unwatched", error=str(error), instead="it is compared at intervals")
            self._refused = str(error)
            return
        self._refused = None
        log.info("folder_watched", observer=self._observer.kind)


async def report_progress(ledger: Operations, metrics: IngestionMetrics, *, period_s: float = _PROGRESS_PERIOD_S) -> None:
    """One line every ten seconds while there is work and it gets on, for ever: why it does not is told once, as it pauses."""
    told = None
    while True:
        await asyncio.sleep(period_s)
        counts = (await ledger.run(views.totals)).images
        left = counts.pending + counts.running
        if left and counts != told:
            told = counts
            rate = metrics.rate_per_s()
            eta_s = round(left / rate) if rate else None
            log.info("ingestion_progressed", **counts.model_dump(), rate_per_s=round(rate, 2), eta_s=eta_s)
