"""Disk against ledger, by stat alone: what is new, changed or gone is handed to the intake to look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import structlog

from core.errors import Unavailable
from watcher import locations, scans
from watcher.folder import WalkBatch
from watcher.intake import Intake
from watcher.ledger import Operations
from watcher.mounts import WITNESSES, is_below
from watcher.pictures import Pictures

log = structlog.get_logger()

T = TypeVar("T")

_PAGE = 1000
_LOOKS_TIMEOUT_S = 60.0
_MOST_FOLDERS = 256
_RETRY_S = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
"""After a scan that failed, which nobody thought of: it may do so again and again."""


class Scanner:
    """Scans one folder at a time; requests for many are one scan of everything."""

    def __init__(self, pictures: Pictures, ledger: Operations, readers: Executor, *, accept_new_folder: bool) -> None:
        self._pictures = pictures
        self._ledger = ledger
        self._readers = readers
        self._accept_new_folder = accept_new_folder
        self._requests: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._done = asyncio.Event()
        self._busy = False
        self.last_scan_at: float | None = None
        self.folder_missing = False

    @property
    def is_busy(self) -> bool:
        return self._busy or bool(self._requests)

    def request(self, below: str = "") -> None:
        """Compare this folder soon."""
        if "" in self._requests:
            return
        if not below or len(self._requests) >= _MOST_FOLDERS:
            self._requests.clear()
            below = ""
        self._requests[below] = None
        self._done.clear()
        self._wake.set()

    async def complete_scan(self) -> None:
        """Compare everything, and return when that is done."""
        self.request()
        await self._done.wait()

    async def lost(self) -> set[str]:
        """Mount points whose file system is away; what lies on them is kept as it is."""
        if self._accept_new_folder:
            missing = not await self._off_loop(self._pictures.is_there)
            self._note_missing(missing)
            return {""} if missing else set()
        devices = await self._ledger.run(locations.mounts)
        witnesses = {mount: await self._ledger.run(locations.sample_below, mount, WITNESSES) for mount in devices}
        lost = await self._off_loop(partial(self._pictures.lost, devices, witnesses))
        self._note_missing("" in lost or not await self._off_loop(self._pictures.is_there))
        return lost

    def _note_missing(self, missing: bool) -> None:
        if missing and not self.folder_missing:
            log.error("folder_missing", kept="every image and point", fix=self._pictures.remedy)
        elif self.folder_missing and not missing:
            log.info("folder_returned")
        self.folder_missing = missing

    async def run(self, intake: Intake) -> None:
        """Work off the requests, for ever."""
        pause_s = _FIRST_PAUSE_S
        while True:
            while self._requests:
                below = next(iter(self._requests))
                del self._requests[below]
                self._busy = True
                try:
                    await self._scan(intake, below)
                    pause_s = _FIRST_PAUSE_S
                except Unavailable as error:  # the ledger's disk
                    log.warning("scan_put_off", folder=below or ".", why=str(error))
                    self.request(below)
                    await asyncio.sleep(_RETRY_S)
                except Exception:
                    log.exception("scan_failed", folder=below or ".", retry_in_s=pause_s)
                    self.request(below)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                finally:
                    self._busy = False
            self._done.set()
            self._wake.clear()
            await self._wake.wait()

    async def _scan(self, intake: Intake, below: str) -> None:
        started = time.monotonic()
        lost = await self.lost()
        if self.folder_missing:
            return
        await self._ledger.run(scans.begin)
        files, devices = await self._mark(below)
        if not below:
            kept = await self._ledger.run(locations.mounts)
            devices |= {mount: device for mount, device in kept.items() if mount in lost}
            await self._ledger.run(locations.record_mounts, devices)
        changed = await self._feed(intake, lambda after: self._ledger.run(scans.changed, after, _PAGE))
        if changed:  # what moved must be seen at its new place before it is missed at the old one
            await intake.calm(timeout_s=_LOOKS_TIMEOUT_S)
        vanished = await self._feed(intake, lambda after: self._ledger.run(scans.vanished, below, after, _PAGE), lost)
        await self._ledger.run(scans.end)
        is_first = self.last_scan_at is None
        if not below:
            self.last_scan_at = time.time()
        level = log.info if changed or vanished or is_first else log.debug
        duration_ms = round((time.monotonic() - started) * 1000)
        level("folder_scanned", folder=below or ".", files=files, changed=changed, vanished=vanished, ms=duration_ms)

    async def _mark(self, below: str) -> tuple[int, dict[str, int]]:
        walk = self._pictures.walk(below)
        files, devices = 0, dict[str, int]()
        while (batch := await self._off_loop(lambda: next(walk, None))) is not None:
            await self._mark_batch(batch)
            files += len(batch.files)
            devices |= batch.mounts
        return files, devices

    async def _mark_batch(self, batch: WalkBatch) -> None:
        if batch.files:
            await self._ledger.run(scans.mark, batch.files)

    async def _feed(self, intake: Intake, page_after: Callable[[str], Awaitable[list[str]]], lost: set[str] | None = None) -> int:
        fed, after = 0, ""
        while page := await page_after(after):
            after = page[-1]
            paths = [path for path in page if not is_below(path, lost or set())]
            await intake.feed(paths)
            fed += len(paths)
        return fed

    async def _off_loop(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)
