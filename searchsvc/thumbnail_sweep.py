"""Thumbnails of pictures that went otherwise than by our own API, whose files were deleted from the folder, do not outlive them for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import cycle
from types import TracebackType
from typing import Self

import structlog

from core.errors import Unavailable
from core.ports import Catalog
from searchsvc.thumbnails import Thumbnails

log = structlog.get_logger()

_ROUND_S = 3600.0
_PARTS = [f"{n:02x}" for n in range(256)]
_PAGE = 500


class ThumbnailSweep:
    """An async context manager: in an hour it compares all that is kept with what the catalog knows, a 256th at a time."""

    def __init__(self, thumbnails: Thumbnails, catalog: Catalog, *, pause_s: float = _ROUND_S / len(_PARTS)) -> None:
        self._thumbnails = thumbnails
        self._catalog = catalog
        self._pause_s = pause_s
        self._sweeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sweeping = asyncio.create_task(self._sweep_for_ever(), name="thumbnail-sweep")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])

    async def _sweep_for_ever(self) -> None:
        for part in cycle(_PARTS):
            await asyncio.sleep(self._pause_s)
            try:
                removed = await self._sweep(part)
            except Unavailable as error:
                log.debug("thumbnails_unswept", why=str(error))
            except Exception:
                log.exception("thumbnail_sweep_failed")
            else:
                if removed:
                    log.info("thumbnails_swept", part=part, removed=removed)

    async def _sweep(self, part: str) -> int:
        """Returns of how many pictures."""
        kept, removed = await self._thumbnails.kept(part), 0
        for first in range(0, len(kept), _PAGE):
            gone = await self._gone(kept[first : first + _PAGE])
            for image_id in gone:
                await self._thumbnails.forget(image_id)
            removed += len(gone)
        return removed

    async def _gone(self, image_ids: Sequence[str]) -> list[str]:
        known = {image.image_id for image in (await self._catalog.states(image_ids)).images}
        return [image_id for image_id in image_ids if image_id not in known]
