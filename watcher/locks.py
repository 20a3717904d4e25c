"""One lock an image: whoever changes its points holds it, so that a deletion and an ingestion never interleave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ImageLocks:
    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def is_held(self, image_id: str) -> bool:
        return image_id in self._locks

    @asynccontextmanager
    async def hold(self, image_id: str) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(image_id, (asyncio.Lock(), 0))
        self._locks[image_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[image_id]
            if waiting == 1:
                del self._locks[image_id]
            else:
                self._locks[image_id] = (lock, waiting - 1)
