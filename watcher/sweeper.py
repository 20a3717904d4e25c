"""What follows from moves and deletions: points learn their new paths, and those of forgotten images go. Both repeat until done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from core import points
from core.errors import Unavailable
from core.ports import VectorStore
from watcher import jobs
from watcher.ledger import Operations
from watcher.locks import ImageLocks

log = structlog.get_logger()

_PAGE = 200
_AT_ONCE = 8
_FLUSH_AFTER_S = 2.0
_RETRY_S = 2.0
_TOGETHER_S = 0.02
"""A rename is seen as a new path and a lost one: within this time they are followed at once."""
_GRACES_WITHOUT_CALM = 15
_LONGEST_SLEEP_S = 60.0
_LONGEST_SLEEP_AMONG_OTHERS_S = 2.0
"""Other processes wake nobody here."""


class Sweeper:
    """`run` works until cancelled. `is_calm` tells whether all files seen are identified: until then, a vanished picture may turn up.

    `is_alone`: no other process writes to the ledger.
    """

    def __init__(
        self,
        ledger: Operations,
        vectors: VectorStore,
        locks: ImageLocks,
        *,
        orphan_grace_s: float,
        is_calm: Callable[[], bool],
        is_alone: bool = True,
    ) -> None:
        self._ledger = ledger
        self._vectors = vectors
        self._locks = locks
        self._orphan_grace_s = orphan_grace_s
        self._is_calm = is_calm
        self._longest_sleep_s = _LONGEST_SLEEP_S if is_alone else _LONGEST_SLEEP_AMONG_OTHERS_S
        self._wake = asyncio.Event()
        self._flush_at: float | None = None

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def note_write(self) -> None:
        """Points were written: they are to survive a power cut soon."""
        if self._flush_at is None:
            self._flush_at = time.monotonic() + _FLUSH_AFTER_S
        self.wake()

    async def run(self) -> None:
        """Follow up on moves and deletions, for ever."""
        while True:
            self._wake.clear()
            try:
                await self._turn()
                pause_s = await self._pause_s()
            except Unavailable:
                pause_s = _RETRY_S
            except Exception:
                log.exception("sweep_failed")
                pause_s = _RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
                    await asyncio.sleep(_TOGETHER_S)

    async def sweep_now(self, image_id: str) -> None:
        """Remove one orphan at once; if that cannot be, `run` will."""
        if not self._locks.is_held(image_id):
            with suppress(Unavailable):
                await self._remove(image_id)
        self.wake()

    async def _turn(self) -> None:
        while moved := await self._ledger.run(jobs.moved, _PAGE):
            await self._for_each(self._follow, moved)
        while orphans := await self._ledger.run(jobs.orphans, self._due_before(), _PAGE):
            await self._for_each(self._remove, orphans)
        if self._flush_at is not None and time.monotonic() >= self._flush_at:
            self._flush_at = None
            try:
                await self._vectors.flush()
            except Exception:
                self._flush_at = time.monotonic() + _FLUSH_AFTER_S
                raise

    async def _for_each(self, work: Callable[[str], Awaitable[None]], image_ids: list[str]) -> None:
        for first in range(0, len(image_ids), _AT_ONCE):
            await asyncio.gather(*(work(image_id) for image_id in image_ids[first : first + _AT_ONCE]))

    def _due_before(self) -> float:
        graces = 1 if self._is_calm() else _GRACES_WITHOUT_CALM
        return self._ledger.now() - self._orphan_grace_s * graces

    async def _pause_s(self) -> float:
        """Until the next orphan is due or the next flush."""
        pauses = [self._longest_sleep_s]
        if self._flush_at is not None:
            pauses.append(self._flush_at - time.monotonic())
        orphan_since = await self._ledger.run(jobs.next_orphan)
        if orphan_since is not None:
            due_in_s = orphan_since + self._orphan_grace_s - self._ledger.now()
            pauses.append(due_in_s if due_in_s > 0 else max(self._orphan_grace_s, 0.05))
        return max(0.0, min(pauses))

    async def _follow(self, image_id: str) -> None:
        """The image's points show its paths as they are now."""
        async with self._locks.hold(image_id):
            places = await self._ledger.run(jobs.places, image_id)
            for collection in await self._vectors.collections():
                await self._vectors.set_payload(collection, points.of_image(image_id), points.paths_payload(places.paths))
            await self._ledger.run(jobs.mark_moved, image_id, places.version)
        self.note_write()
        log.info("image_moved", image_id=image_id, paths=places.paths)

    async def _remove(self, image_id: str) -> None:
        """The points go first, then the row: a crash in between repeats both."""
        async with self._locks.hold(image_id):
            if not await self._ledger.run(jobs.condemn, image_id):
                return
            for collection in await self._vectors.collections():
                await self._vectors.delete(collection, points.of_image(image_id))
            removed = await self._ledger.run(jobs.remove, image_id)
        self.note_write()
        if removed:
            log.info("image_removed", image_id=image_id)
