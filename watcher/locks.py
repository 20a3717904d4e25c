"""One lock an image: whoever changes its points holds it, so that a deletion and an ingestion never interleave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext


class ImageLocks:
    """`beyond` keeps other processes away as well, where there may be any."""

    def __init__(self, beyond: Callable[[str], AbstractAsyncContextManager[None]] = lambda _: nullcontext()) -> None:
        self._beyond = beyond
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def is_held(self, image_id: str) -> bool:
        return image_id in self._locks

    @asynccontextmanager
    async def hold(self, image_id: str) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(image_id, (asyncio.Lock(), 0))
        self._locks[image_id] = (lock, waiting + 1)
        try:
            async with lock, self._beyond(image_id):
                yield
        finally:
            lock, waiting = self._locks[image_id]
            if waiting == 1:
                del self._locks[image_id]
            else:
                self._locks[image_id] = (lock, waiting - 1)
