"""Taking a picture in: checked, written whole or not at all, never over another, and announced to the watcher."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from uuid import uuid4

import structlog

from core import files
from core.errors import CatalogUnavailable, ImageRejected, NotFound, Unavailable
from core.filenames import from_text
from core.ports import Catalog
from core.room import Rooms, lacks_room, storage_full
from searchsvc.naming import file_name, folder_path, with_mark

log = structlog.get_logger()

_TEMPORARY_PREFIX = ".upload-"
_TEMPORARY_SUFFIX = ".part"
_NOT_THERE = "the watched folder is not there"

FormatOf = Callable[[bytes], str]
"""Reads as much of a picture as tells that it is one; returns Pillow's name of its format. Raises ImageRejected."""


class Uploads:
    """`decoding` runs the check; `writing` has one thread, so that two uploads never choose the same name."""

    def __init__(
        self,
        root: Path,
        *,
        catalog: Catalog,
        format_of: FormatOf,
        decoding: Executor,
        writing: Executor,
        rooms: Rooms,
    ) -> None:
        self._root = root
        self._rooms = rooms
        self._catalog = catalog
        self._format_of = format_of
        self._decoding = decoding
        self._writing = writing

    async def add(self, picture: bytes, *, offered_name: str | None, folder: str | None) -> str:
        """Take a picture in and return its image id. Raises ImageRejected, InvalidRequest, Unavailable, StorageFull.

        Where the index has no room for it, it is refused at once: it would lie in the folder for nobody to find.
        """
        loop = asyncio.get_running_loop()
        await self._check_folder()
        await loop.run_in_executor(self._writing, self._rooms.check)
        within = folder_path(folder)
        image_id, image_format = await loop.run_in_executor(self._decoding, self._identify, picture)
        if await self._is_known(image_id):
            return image_id
        name = file_name(offered_name, image_format)
        path = await loop.run_in_executor(self._writing, self._write, picture, within, name, image_id)
        log.info("upload_written", path=path, bytes=len(picture), image_id=image_id)
        try:
            await self._catalog.notice(path)
        except (Unavailable, NotFound, ImageRejected) as error:  # the file is there: the watcher finds it by itself
            log.info("upload_unannounced", path=path, error=type(error).__name__)
        return image_id

    async def _check_folder(self) -> None:
        """What is written to the empty place of a drive would be out of sight when that comes back."""
        with contextlib.suppress(CatalogUnavailable):
            if (await self._catalog.status()).watcher.state == "folder_missing":
                raise Unavailable(_NOT_THERE, retry_after_s=30)

    def remove_leftovers(self) -> None:
        """Uploads that a power cut or a kill broke off. Blocks on the disk."""
        with contextlib.suppress(OSError):
            for leftover in self._root.glob(f"{_TEMPORARY_PREFIX}*{_TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)

    def _identify(self, picture: bytes) -> tuple[str, str]:
        image_format = self._format_of(picture)
        return hashlib.sha256(picture).hexdigest(), image_format

    async def _is_known(self, image_id: str) -> bool:
        """Whether the folder holds these bytes already: a second copy would be the same image."""
        try:
            record = await self._catalog.image(image_id)
        except (NotFound, Unavailable):
            return False
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writing, self._any_exists, record.paths)

    def _any_exists(self, paths: tuple[str, ...]) -> bool:
        return any((self._root / from_text(path)).is_file() for path in paths)

    def _write(self, picture: bytes, within: str, name: str, image_id: str) -> str:
        """Returns the path within the watched folder."""
        if not self._root.is_dir():
            raise Unavailable(_NOT_THERE, retry_after_s=30)
        try:
            target = self._target_folder(within)
            temporary = self._temporary(target)
            try:
                files.write_new(temporary, picture)
                final = _place(temporary, target, name, image_id, picture)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            log.warning("upload_unwritable", error=type(error).__name__, errno=error.errno)
            if lacks_room(error):
                raise storage_full("the watched folder") from None
            raise Unavailable(f"the picture cannot be stored: {os.strerror(error.errno or 0)}", retry_after_s=60) from None
        return final.relative_to(self._root).as_posix()

    def _target_folder(self, within: str) -> Path:
        target = self._root / within
        files.make_folder(target)
        if not target.resolve().is_relative_to(self._root.resolve()):
            raise PermissionError(13, "outside the watched folder")
        return target

    def _temporary(self, target: Path) -> Path:
        """In the watched folder itself, where `remove_leftovers` looks; beside the target when that is on another disk."""
        home = self._root if self._root.stat().st_dev == target.stat().st_dev else target
        return home / f"{_TEMPORARY_PREFIX}{uuid4().hex}{_TEMPORARY_SUFFIX}"


def _place(temporary: Path, target: Path, name: str, image_id: str, picture: bytes) -> Path:
    """Give the written file its name, or one like it where that is taken by other bytes."""
    for candidate in (name, with_mark(name, image_id[:8]), with_mark(name, image_id)):
        final = target / candidate
        if _take_name(temporary, final):
            files.sync([target])
            return final
        if final.is_file() and final.stat().st_size == len(picture) and final.read_bytes() == picture:
            return final
    raise FileExistsError(17, "every name is taken")


def _take_name(temporary: Path, final: Path) -> bool:
    """Rename without replacing: a link fails where the name is taken, whoever took it."""
    try:
        final.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if final.exists() or final.is_symlink():
            return False
        temporary.rename(final)
    return True
