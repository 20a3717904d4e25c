"""Taking a picture in: checked, written whole or not at all, never over another, and announced to the watcher."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from core.errors import CatalogUnavailable, ImageRejected, NotFound, Unavailable
from core.ports import Catalog, ImageStore
from core.room import Rooms
from searchsvc.naming import file_name, folder_path, with_mark
from searchsvc.originals import Originals

log = structlog.get_logger()

FormatOf = Callable[[bytes], str]
"""Reads as much of a picture as tells that it is one; returns Pillow's name of its format. Raises ImageRejected."""


class Uploads:
    """`decoding` runs the check; `writing` has one thread, so that two uploads never choose the same name."""

    def __init__(
        self,
        store: ImageStore,
        *,
        originals: Originals,
        catalog: Catalog,
        format_of: FormatOf,
        decoding: Executor,
        writing: Executor,
        rooms: Rooms,
    ) -> None:
        self._store = store
        self._originals = originals
        self._rooms = rooms
        self._catalog = catalog
        self._format_of = format_of
        self._decoding = decoding
        self._writing = writing

    async def add(self, picture: bytes, *, offered_name: str | None, folder: str | None, backfill: bool = False) -> str:
        """Take a picture in and return its image id. Raises ImageRejected, InvalidRequest, Unavailable, StorageFull.

        Where the index has no room for it, it is refused at once: it would lie in the folder for nobody to find. One of a `backfill`
        waits for all that is added otherwise.
        """
        loop = asyncio.get_running_loop()
        await self._check_folder()
        await loop.run_in_executor(self._writing, self._rooms.check)
        within = folder_path(folder)
        image_id, image_format = await loop.run_in_executor(self._decoding, self._identify, picture)
        if await self._is_stored(image_id, picture):
            return image_id
        name = file_name(offered_name, image_format)
        names = (name, with_mark(name, image_id[:8]), with_mark(name, image_id))
        path = await loop.run_in_executor(self._writing, self._store.add, within, names, picture)
        log.info("upload_written", path=path, bytes=len(picture), image_id=image_id)
        try:
            await self._catalog.notice(path, backfill=backfill)
        except (Unavailable, NotFound, ImageRejected) as error:  # the file is there: the watcher finds it by itself
            log.info("upload_unannounced", path=path, error=type(error).__name__)
        return image_id

    async def _check_folder(self) -> None:
        """What is written to the empty place of a drive would be out of sight when that comes back."""
        with contextlib.suppress(CatalogUnavailable):
            if (await self._catalog.status()).watcher.state == "folder_missing":
                raise Unavailable("the watched folder is not there", retry_after_s=30)

    def _identify(self, picture: bytes) -> tuple[str, str]:
        image_format = self._format_of(picture)
        return hashlib.sha256(picture).hexdigest(), image_format

    async def _is_stored(self, image_id: str, picture: bytes) -> bool:
        """Whether these bytes are stored already: a second copy would be the same image."""
        try:
            record = await self._catalog.image(image_id)
        except (NotFound, Unavailable):
            return False
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writing, self._originals.any_holds, record.paths, picture)
