"""Searches that were answered lately, for the ratings of them: here, and where several services share the feedback, anywhere."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog
from cachetools import FIFOCache

from core.errors import Unavailable
from searchsvc.feedback import FeedbackStore, RecentSearch

log = structlog.get_logger()

_REMEMBERED = 2048
_SHARED = 50_000
"""Of all services together: with vectors of 512 numbers and ten pictures each, 150 MB in the database."""

_SHARE_EVERY_S = 0.25
_LONGEST_PAUSE_S = 60.0
_CLEAR_EVERY = 256


class RecentSearches:
    """An async context manager. Sharing waits for nobody: a search is told to others a moment after its answer, all at once."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store
        self._here: FIFOCache[str, RecentSearch] = FIFOCache(_REMEMBERED)
        self._untold: FIFOCache[str, RecentSearch] = FIFOCache(_REMEMBERED)
        self._sharing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._store.is_shared:
            self._sharing = asyncio.create_task(self._share(), name="searches-sharing")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._sharing is not None:
            self._sharing.cancel()
            await asyncio.wait([self._sharing])

    def remember(self, search_id: str, search: RecentSearch) -> None:
        self._here[search_id] = search
        if self._store.is_shared:
            self._untold[search_id] = search

    async def recall(self, search_id: str) -> RecentSearch | None:
        here = self._here.get(search_id)
        if here is not None or not self._store.is_shared:
            return here
        with suppress(Unavailable):
            return await self._store.recall(search_id)
        return None

    async def _share(self) -> None:
        """What could not be told is dropped: a rating of it that comes to another service tells less."""
        told, pause_s = 0, _SHARE_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            if not self._untold:
                continue
            searches, self._untold = dict(self._untold), FIFOCache(_REMEMBERED)
            try:
                await self._store.remember(searches)
                told, pause_s = told + 1, _SHARE_EVERY_S
                if told % _CLEAR_EVERY == 0:
                    await self._store.forget_searches(_SHARED)
            except Unavailable as error:
                log.info("searches_not_shared", searches=len(searches), error=str(error))
            except Exception:  # a fault of ours: those to come may pass
                log.critical("searches_sharing_failed", searches=len(searches), exc_info=True)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
