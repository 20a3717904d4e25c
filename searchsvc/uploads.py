"""Taking a picture in: checked, written whole or not at all, never over another, and announced to the watcher."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from uuid import uuid4

import structlog

from core.errors import CatalogUnavailable, ImageRejected, NotFound, Unavailable
from core.filenames import from_text
from core.images import beneath
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
            place = beneath.resolved(self._root, within)
            with beneath.folder(self._root, place.parts, make=True) as target:
                final = self._write_into(target, picture, name, image_id)
        except OSError as error:
            log.warning("upload_unwritable", error=type(error).__name__, errno=error.errno)
            if lacks_room(error):
                raise storage_full("the watched folder") from None
            raise Unavailable(f"the picture cannot be stored: {os.strerror(error.errno or 0)}", retry_after_s=60) from None
        return (place / final).as_posix()

    def _write_into(self, target: int, picture: bytes, name: str, image_id: str) -> str:
        """Whole or not at all. Returns the name that it got."""
        with beneath.folder(self._root, ()) as root:
            here = os.fstat(root).st_dev == os.fstat(target).st_dev
            home = root if here else target  # in the root `remove_leftovers` looks, but a link cannot lead to another disk
            temporary = f"{_TEMPORARY_PREFIX}{uuid4().hex}{_TEMPORARY_SUFFIX}"
            try:
                _write_durably(temporary, home, picture)
                names = (name, with_mark(name, image_id[:8]), with_mark(name, image_id))
                return _place(temporary, home, names, target, picture)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=home)


def _write_durably(name: str, home: int, picture: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=home)
    with os.fdopen(descriptor, "wb") as file:
        file.write(picture)
        file.flush()
        os.fsync(file.fileno())


def _place(temporary: str, home: int, names: Sequence[str], target: int, picture: bytes) -> str:
    """Give the written file the first of the names that is not taken by other bytes."""
    for candidate in names:
        if _take_name(temporary, home, candidate, target):
            os.fsync(target)
            return candidate
        if _holds(candidate, target, picture):
            return candidate
    raise FileExistsError(17, "every name is taken")


def _take_name(temporary: str, home: int, name: str, target: int) -> bool:
    """Rename without replacing: a link fails where the name is taken, whoever took it."""
    try:
        os.link(temporary, name, src_dir_fd=home, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if _is_taken(name, target):
            return False
        os.rename(temporary, name, src_dir_fd=home, dst_dir_fd=target)
    return True


def _is_taken(name: str, target: int) -> bool:
    try:
        os.stat(name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _holds(name: str, target: int, picture: bytes) -> bool:
    """Whether these bytes lie there already."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=target)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(picture):
            return False
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(len(picture) + 1) == picture
    finally:
        os.close(descriptor)
