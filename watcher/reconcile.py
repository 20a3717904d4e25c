"""The truth: folder against ledger, then ledger against vectors, at the start and at intervals. Events only make it quicker."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

import structlog

from core import points
from core.errors import InvalidRequest, Unavailable
from core.points import Kind
from core.ports import Match, Record, VectorStore, Where
from core.schemas import ModelsInfo
from watcher import jobs, locations, views
from watcher.comparison import POINTS_PER_RANGE, Comparison, ids_of
from watcher.ledger import Operations
from watcher.locks import ImageLocks

log = structlog.get_logger()

_PAGE = 500
_RETRY_S = 5.0
_SETTLING_S = 0.5
_LONGEST_SETTLING_S = 30.0
"""A file that somebody writes may be one of those whose points no image explains, where the ledger was lost; not for ever, though."""

_SLICE_S = 5.0
"""After which a look at every point lets others have their turn."""

_SLICE_AMONG_OTHERS_S = 2.0
_PAUSE_PER_SLICE = 9.0
"""While pictures wait, so much of its own length passes after a slice: a tenth of the time is the comparison's, whatever waits."""


@dataclass(frozen=True, slots=True)
class Mended:
    """Images that start anew, points that were removed; `complete` is False where there is more to look at."""

    missing: int
    stray: int
    complete: bool


class VectorCheck:
    """Compares ledger and vectors. What looks wrong is looked at again under the image's lock before anything is done about it.

    `points_per_s` bounds how fast a look at every point reads their ids; 0: no bound.
    """

    def __init__(
        self,
        ledger: Operations,
        vectors: VectorStore,
        locks: ImageLocks,
        *,
        points_per_s: float = 0.0,
        points_per_range: int = POINTS_PER_RANGE,
    ) -> None:
        self._ledger = ledger
        self._vectors = vectors
        self._locks = locks
        self._points_per_s = points_per_s
        self._comparison = Comparison(ledger, vectors, points_per_s=points_per_s, points_per_range=points_per_range)
        self._pending: set[str] = set()
        """Collections of which the look at every point that is under way has not come to the end."""
        self._foreign: dict[str, str | None] = {}
        """Likewise those of other models, each with the point where it stopped."""

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

    async def mend(self, info: ModelsInfo, *, every_point: bool = True, for_s: float = float("inf")) -> Mended:
        """Images with missing points start anew, points that belong to nothing go.

        Without `every_point` the ids are read of those ranges alone whose counts differ. To a ledger that knows of no file at all,
        every point would be a stray: it was lost, and so may the folder be.
        """
        until = time.monotonic() + for_s
        if not await self._ledger.run(locations.has_below, ""):
            return Mended(0, 0, complete=True)
        current = {space.collection for space in info.spaces}
        present = await self._vectors.collections()
        if every_point and not self.is_under_way:
            self._pending, self._foreign = set(present), dict.fromkeys(present)
        self._pending &= current & set(present)
        self._foreign = {name: at for name, at in self._foreign.items() if name in present and name not in current}
        missing, stray = 0, 0
        for collection in sorted(self._foreign) if every_point else ():
            stray += await self._remove_unknown(collection, until=until)
            if collection in self._foreign:
                return Mended(missing, stray, complete=False)
        for collection in sorted(self._pending) if every_point else [name for name in present if name in current]:
            mended = await self._mend(collection, every_point=every_point, until=until)
            missing, stray = missing + mended.missing, stray + mended.stray
            if not mended.complete:
                return Mended(missing, stray, complete=False)
            self._pending.discard(collection)
        return Mended(missing, stray, complete=True)

    @property
    def is_under_way(self) -> bool:
        """Whether a look at every point was begun and has not come to its end."""
        return bool(self._pending or self._foreign)

    async def _mend(self, collection: str, *, every_point: bool, until: float) -> Mended:
        missing, stray = 0, 0
        walk = self._comparison.every_point(collection, until=until) if every_point else self._comparison.differing(collection)
        async with aclosing(walk):
            async for compared in walk:
                for image_id in compared.lacking:
                    missing += await self._check_image(collection, image_id)
                stray += await self._mend_stray(collection, compared.unexplained)
        return Mended(missing, stray, complete=not every_point or not self._comparison.is_under_way(collection))

    async def _remove_unknown(self, collection: str, *, until: float) -> int:
        """In the collection of other models: what they found of a known image is kept, should they come back.

        It is left among `_foreign` where time was over before its end.
        """
        strays = 0
        seals = Where(must=(Match("kind", (Kind.IMAGE.value,)),))
        async with aclosing(self._pages(collection, seals, first=self._foreign[collection])) as pages:
            async for page in pages:
                of_image = {str(record.payload.get("image_id")): record for record in page}
                known = await self._ledger.run(views.states, list(of_image))
                for image_id in of_image.keys() - known.keys():
                    strays += await self._check_strays(collection, image_id, [of_image[image_id]])
                await asyncio.sleep(len(page) / self._points_per_s if self._points_per_s else 0.0)
                self._foreign[collection] = page[-1].id
                if len(page) == _PAGE and time.monotonic() >= until:
                    return strays
        del self._foreign[collection]
        return strays

    async def _pages(self, collection: str, where: Where, *, first: str | None) -> AsyncGenerator[list[Record], None]:
        page: list[Record] = []
        async for record in self._vectors.scroll(collection, where=where, first=first, batch=_PAGE):
            page.append(record)
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    async def _check_image(self, collection: str, image_id: str) -> bool:
        async with self._locks.hold(image_id):
            expected = (await self._ledger.run(views.states, [image_id])).get(image_id)
            if expected is None:
                return False
            ids = ids_of(expected)
            if len(await self._vectors.retrieve(collection, ids)) == len(ids):
                return False
            log.warning("points_missing", collection=collection, image_id=image_id)
            return await self._ledger.run(jobs.requeue, image_id)

    async def _mend_stray(self, collection: str, unexplained: Sequence[str]) -> int:
        """Points that no indexed image explains. They are found by subtraction, so their payload is read only here."""
        strays = 0
        for start in range(0, len(unexplained), _PAGE):
            by_image: dict[str, list[Record]] = defaultdict(list)
            for record in await self._vectors.retrieve(collection, unexplained[start : start + _PAGE]):
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


class Reconciler:
    """`run` compares at the start, at intervals and on request: counts as a rule, every point at a start, after a change of models, and
    each `every_point_interval_s`, since a cluster may lose points and revive as many. While there `is_backlog`, ingestion has most of the time.
    """

    def __init__(
        self,
        ledger: Operations,
        check: VectorCheck,
        *,
        interval_s: float,
        every_point_interval_s: float = 86_400.0,
        scan: Callable[[], Awaitable[None]],
        is_calm: Callable[[], bool],
        is_settling: Callable[[], bool],
        is_backlog: Callable[[], Awaitable[bool]],
        models: Callable[[], Awaitable[ModelsInfo]],
        mended: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._check = check
        self._interval_s = interval_s
        self._every_point_interval_s = every_point_interval_s
        self._scan = scan
        self._is_calm = is_calm
        self._is_settling = is_settling
        self._settling_since: float | None = None
        self._is_backlog = is_backlog
        self._models = models
        self._mended = mended
        self._wake = asyncio.Event()
        self._every_point = True
        self._once_more = False
        self._looked_at = time.monotonic()
        self.is_busy = True
        self.has_scanned = False

    def models_changed(self) -> None:
        """Collections may have changed: look at every point. A look that is under way comes to its end before."""
        self._every_point = True
        self._once_more = self._once_more or self._check.is_under_way
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
                pause_s = await self._check_vectors()
            except (Unavailable, InvalidRequest) as error:  # the worker tells of it
                log.debug("vectors_unchecked", why=str(error))
                pause_s = _RETRY_S
            except Exception:
                log.exception("reconcile_failed")
            self.is_busy = False
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _check_vectors(self) -> float:
        """Returns the pause before the next look. While the intake is at work there is none: what it has not identified looks like a stray."""
        info = await self._models()
        if not self._is_calm():
            return _RETRY_S
        if self._is_to_settle():
            return _SETTLING_S
        every_point = self._every_point = self._every_point or time.monotonic() - self._looked_at >= self._every_point_interval_s
        if not every_point:
            totals = await self._ledger.run(views.totals)
            if totals.images.pending or totals.images.running or totals.unsettled or await self._check.counts_agree(info):
                return self._interval_s
        among_others = await self._is_backlog()
        self._every_point = False
        took_s = await self._mend(info, every_point=every_point, for_s=_SLICE_AMONG_OTHERS_S if among_others else _SLICE_S)
        if not self._every_point:
            return self._interval_s
        return _PAUSE_PER_SLICE * took_s if among_others else 0.0

    def _is_to_settle(self) -> bool:
        """Whether to wait for files that are seen and not identified, because they may still be written to."""
        if not self._is_settling():
            self._settling_since = None
            return False
        now = time.monotonic()
        self._settling_since = self._settling_since or now
        return now - self._settling_since < _LONGEST_SETTLING_S

    async def _mend(self, info: ModelsInfo, *, every_point: bool, for_s: float) -> float:
        """Returns the seconds that it took."""
        started = time.monotonic()
        try:
            mended = await self._check.mend(info, every_point=every_point, for_s=for_s)
        except BaseException:
            self._every_point = self._every_point or every_point
            raise
        level = log.warning if mended.missing or mended.stray else log.debug
        took_s = time.monotonic() - started
        level("vectors_compared", missing=mended.missing, stray=mended.stray, ms=round(took_s * 1000), complete=mended.complete)
        if mended.missing:
            self._mended()
        if not mended.complete:
            self._every_point = True
        elif every_point:
            self._looked_at = time.monotonic()
            self._every_point, self._once_more = self._every_point or self._once_more, False
        return took_s
