"""The truth: folder against ledger, then ledger against vectors, at the start and at intervals. Events only make it quicker."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from core import points
from core.errors import InvalidRequest, Unavailable
from core.points import Kind
from core.ports import Match, Record, VectorStore, Where
from core.schemas import ModelsInfo
from watcher import jobs, locations, scans, views
from watcher.ledger import Ledger
from watcher.locks import ImageLocks
from watcher.views import Expected

log = structlog.get_logger()

_PAGE = 500
_RETRY_S = 5.0


class VectorCheck:
    """Compares ledger and vectors. What looks wrong is looked at again under the image's lock before anything is done about it."""

    def __init__(self, ledger: Ledger, vectors: VectorStore, locks: ImageLocks) -> None:
        self._ledger = ledger
        self._vectors = vectors
        self._locks = locks

    async def counts_agree(self, info: ModelsInfo) -> bool:
        """A quick look: as many points of each kind as the ledger expects."""
        totals = await self._ledger.run(views.settled)
        for space in info.spaces:
            images = await self._count(space.collection, Kind.IMAGE)
            segments = await self._count(space.collection, Kind.SEGMENT)
            if (images, segments) != (totals.images, totals.segments):
                return False
        return True

    async def holds_all(self, info: ModelsInfo) -> bool:
        """Whether there are at least as many points as the ledger expects; what is being written has more by a moment."""
        totals = await self._ledger.run(views.settled)
        for space in info.spaces:
            if await self._count(space.collection, Kind.IMAGE) < totals.images:
                return False
            if await self._count(space.collection, Kind.SEGMENT) < totals.segments:
                return False
        return True

    async def _count(self, collection: str, kind: Kind) -> int:
        return await self._vectors.count(collection, where=Where(must=(Match("kind", (kind.value,)),)))

    async def mend(self, info: ModelsInfo) -> tuple[int, int]:
        """Images with missing points start anew, points that belong to nothing go. Returns how many of each.

        To a ledger that knows of no file at all, every point would be a stray: it was lost, and so may the folder be.
        """
        if not await self._ledger.run(locations.has_below, ""):
            return 0, 0
        current = {space.collection for space in info.spaces}
        missing, stray = 0, 0
        for collection in await self._vectors.collections():
            if collection in current:
                await self._mark(collection)
                missing += await self._mend_missing(collection)
                stray += await self._mend_stray(collection)
            else:
                stray += await self._remove_unknown(collection)
        return missing, stray

    async def _remove_unknown(self, collection: str) -> int:
        """In the collection of other models: what they found of a known image is kept, should they come back."""
        strays = 0
        async for record in self._vectors.scroll(collection, where=Where(must=(Match("kind", (Kind.IMAGE.value,)),))):
            image_id = str(record.payload.get("image_id"))
            if image_id not in await self._ledger.run(views.states, [image_id]):
                strays += await self._check_strays(collection, image_id, [record])
        return strays

    async def _mark(self, collection: str) -> None:
        await self._ledger.run(scans.begin_points)
        page: list[str] = []
        async for record in self._vectors.scroll(collection, with_payload=False):
            page.append(record.id)
            if len(page) >= _PAGE:
                await self._ledger.run(scans.mark_points, page)
                page = []
        await self._ledger.run(scans.mark_points, page)

    async def _mend_missing(self, collection: str) -> int:
        missing, after = 0, ""
        while page := await self._ledger.run(views.expected, after, _PAGE):
            after = page[-1].image_id
            for image in await self._ledger.run(scans.lacking_points, [(image, _ids_of(image)) for image in page]):
                missing += await self._check_image(collection, image.image_id)
        return missing

    async def _check_image(self, collection: str, image_id: str) -> bool:
        async with self._locks.hold(image_id):
            expected = (await self._ledger.run(views.states, [image_id])).get(image_id)
            if expected is None:
                return False
            ids = _ids_of(expected)
            if len(await self._vectors.retrieve(collection, ids)) == len(ids):
                return False
            log.warning("points_missing", collection=collection, image_id=image_id)
            return await self._ledger.run(jobs.requeue, image_id)

    async def _mend_stray(self, collection: str) -> int:
        """Points that no indexed image explains. They are found by subtraction, so their payload is read only here."""
        strays, after = 0, ""
        while page := await self._ledger.run(scans.unexplained_points, after, _PAGE):
            after = page[-1]
            by_image: dict[str, list[Record]] = defaultdict(list)
            for record in await self._vectors.retrieve(collection, page):
                by_image[str(record.payload.get("image_id"))].append(record)
            for image_id, records in by_image.items():
                strays += await self._check_strays(collection, image_id, records)
        return strays

    async def _check_strays(self, collection: str, image_id: str, records: list[Record]) -> int:
        async with self._locks.hold(image_id):
            known = await self._ledger.run(views.states, [image_id])
            if image_id not in known:
                await self._vectors.delete(collection, points.of_image(image_id))
                log.warning("points_removed", collection=collection, image_id=image_id, why="no such image")
                return len(records)
            image = known[image_id]
            stale = [record for record in records if image is not None and record.payload.get("n", -1) >= image.segments]
            if image is not None and stale:
                await self._vectors.delete(collection, points.stale_segments_of(image_id, image.segments))
                log.warning("points_removed", collection=collection, image_id=image_id, why="stale segments")
            return len(stale)


def _ids_of(image: Expected) -> list[str]:
    segments = (points.segment_point_id(image.image_id, n) for n in range(image.segments))
    return [points.image_point_id(image.image_id), *segments]


class Reconciler:
    """`run` compares at the start, at intervals and on request. A start after an unclean end and a change of models look at every point."""

    def __init__(
        self,
        ledger: Ledger,
        check: VectorCheck,
        *,
        interval_s: float,
        scan: Callable[[], Awaitable[None]],
        is_calm: Callable[[], bool],
        models: Callable[[], Awaitable[ModelsInfo]],
        mended: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._check = check
        self._interval_s = interval_s
        self._scan = scan
        self._is_calm = is_calm
        self._models = models
        self._mended = mended
        self._wake = asyncio.Event()
        self._every_point = True
        self.is_busy = True
        self.has_scanned = False

    def models_changed(self) -> None:
        """Collections may have changed: look at every point."""
        self._every_point = True
        self._wake.set()

    async def run(self) -> None:
        """Reconcile, for ever."""
        scanned_at = 0.0
        while True:
            self.is_busy = True
            self._wake.clear()
            if not self.has_scanned or time.monotonic() - scanned_at >= self._interval_s:
                await self._scan()
                scanned_at, self.has_scanned = time.monotonic(), True
            pause_s = self._interval_s
            try:
                pause_s = self._interval_s if await self._check_vectors() else _RETRY_S
            except (Unavailable, InvalidRequest) as error:  # the worker tells of it
                log.debug("vectors_unchecked", why=str(error))
                pause_s = _RETRY_S
            except Exception:
                log.exception("reconcile_failed")
            self.is_busy = False
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _check_vectors(self) -> bool:
        """False when it must wait: what the intake has not identified yet would look like a stray."""
        info = await self._models()
        if not self._is_calm():
            return False
        every_point = self._every_point
        if not every_point:
            totals = await self._ledger.run(views.totals)
            if totals.images.pending or totals.images.running or totals.unsettled or await self._check.counts_agree(info):
                return True
        started = time.monotonic()
        self._every_point = False
        try:
            missing, stray = await self._check.mend(info)
        except BaseException:
            self._every_point = every_point
            raise
        level = log.warning if missing or stray else log.debug
        level("vectors_compared", missing=missing, stray=stray, ms=round((time.monotonic() - started) * 1000))
        if missing:
            self._mended()
        return True
