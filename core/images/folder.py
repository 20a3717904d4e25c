"""Pictures in a folder: found, read and written beneath it, and never outside, whoever renames what meanwhile."""

from __future__ import annotations

import contextlib
import os
import stat as modes
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import structlog

from core.errors import Forbidden, NotFound, Unavailable
from core.filenames import from_text, is_hidden, to_text
from core.images import beneath
from core.images.kinds import TELLING_BYTES
from core.ports import OpenedFile, ShownAs, StoredFile
from core.room import lacks_room, storage_full

log = structlog.get_logger()

_PAGE = 1000
_TEMPORARY_PREFIX = ".upload-"
_TEMPORARY_SUFFIX = ".part"
_GONE = "the picture's file is no longer there"


class ImageFolder:
    """See `core.ports.ImageStore`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        if not self._root.is_dir():
            raise Unavailable("the watched folder is not there", retry_after_s=30)

    def list(self, below: str = "", *, after: str = "") -> Iterator[list[StoredFile]]:
        self.check()
        page: list[StoredFile] = []
        for path in _paths(self._root, f"{below}/" if below else "", after):
            with contextlib.suppress(NotFound, Forbidden):
                page.append(self.stat(path))
            if len(page) >= _PAGE:
                yield page
                page = []
        if page:
            yield page

    def stat(self, path: str) -> StoredFile:
        try:
            status = (self._root / beneath.resolved(self._root, from_text(path))).stat()
        except PermissionError:
            raise Forbidden("the file cannot be opened") from None
        except OSError:
            raise NotFound(_GONE) from None
        if not modes.S_ISREG(status.st_mode):
            raise NotFound(_GONE)
        return _stored(path, status)

    def read(self, path: str, *, most_bytes: int) -> tuple[StoredFile, bytes]:
        with self.open(path) as opened:
            return _stored(path, os.fstat(opened.file.fileno())), opened.file.read(most_bytes)

    def open(self, path: str) -> OpenedFile:
        try:
            opened = _regular(beneath.open_file(self._root, from_text(path)))
        except PermissionError:
            raise Forbidden("the file cannot be opened") from None
        except OSError:
            raise NotFound(_GONE) from None
        if opened is None:
            raise NotFound(_GONE)
        return opened

    def peek(self, path: str) -> tuple[StoredFile, bytes]:
        return self.read(path, most_bytes=TELLING_BYTES)

    def delete(self, path: str) -> None:
        """A link is removed, not what it leads to."""
        place = Path(from_text(path))
        try:
            above = beneath.resolved(self._root, str(place.parent))
            with beneath.folder(self._root, above.parts) as folder:
                os.unlink(place.name, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError:
            raise Unavailable("the folder does not let its files be removed", retry_after_s=60) from None

    def forget(self, path: str) -> None:
        """Nothing is kept: the folder is where it is read."""

    def link(self, path: str, shown: ShownAs, *, method: str = "GET") -> str | None:
        """None: the search service sends it, with ranges and entity tags."""
        return None

    # --- writing

    def add(self, within: str, names: Sequence[str], content: bytes) -> str:
        self.check()
        try:
            place = beneath.resolved(self._root, within)
            with beneath.folder(self._root, place.parts, make=True) as target:
                final = self._write_into(target, names, content)
        except OSError as error:
            log.warning("upload_unwritable", error=type(error).__name__, errno=error.errno)
            if lacks_room(error):
                raise storage_full("the watched folder") from None
            raise Unavailable(f"the picture cannot be stored: {os.strerror(error.errno or 0)}", retry_after_s=60) from None
        return (place / final).as_posix()

    def remove_leftovers(self) -> None:
        """What a power cut or a kill broke off."""
        with contextlib.suppress(OSError):
            for leftover in self._root.glob(f"{_TEMPORARY_PREFIX}*{_TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)

    def _write_into(self, target: int, names: Sequence[str], content: bytes) -> str:
        """Whole or not at all. Returns the name that it got."""
        with beneath.folder(self._root, ()) as root:
            here = os.fstat(root).st_dev == os.fstat(target).st_dev
            home = root if here else target  # in the root `remove_leftovers` looks, but a link cannot lead to another disk
            temporary = f"{_TEMPORARY_PREFIX}{uuid4().hex}{_TEMPORARY_SUFFIX}"
            try:
                _write_durably(temporary, home, content)
                return _place(temporary, home, names, target, content)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=home)


def open_regular(path: Path) -> OpenedFile | None:
    """Open a regular file; None for anything else, on which reading might wait for ever. Raises OSError."""
    return _regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def _regular(descriptor: int) -> OpenedFile | None:
    """Takes the descriptor over: it is closed with the file, or here."""
    try:
        status = os.fstat(descriptor)
        if not modes.S_ISREG(status.st_mode):
            os.close(descriptor)
            return None
        first_bytes = os.pread(descriptor, TELLING_BYTES, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenedFile(os.fdopen(descriptor, "rb"), status.st_size, status.st_mtime, first_bytes)


def _stored(path: str, status: os.stat_result) -> StoredFile:
    return StoredFile(path, status.st_size, status.st_mtime_ns, str(status.st_ino))


def _paths(root: Path, folder: str, after: str) -> Iterator[str]:
    """The paths of what may be files within a folder (`''`, or with `/` at its end), in order. One folder is held in memory at a time."""
    try:
        with os.scandir(root / from_text(folder)) as entries:
            names = sorted(to_text(entry.name) + "/" * entry.is_dir(follow_symlinks=False) for entry in entries)
    except OSError:  # unreadable, or gone meanwhile
        return
    within = after[len(folder) :] if after.startswith(folder) else "" if after < folder else None
    if within is None:
        return
    begin = bisect_left(names, within.partition("/")[0] + "/" * ("/" in within))
    for name in names[begin:]:
        if is_hidden(name):
            continue
        if name.endswith("/"):
            yield from _paths(root, folder + name, after)
        elif folder + name > after:
            yield folder + name


def _write_durably(name: str, home: int, content: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=home)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _place(temporary: str, home: int, names: Sequence[str], target: int, content: bytes) -> str:
    """Give the written file the first of the names that is not taken by other bytes."""
    for candidate in names:
        if _take_name(temporary, home, candidate, target):
            os.fsync(target)
            return candidate
        if _holds(candidate, target, content):
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


def _holds(name: str, target: int, content: bytes) -> bool:
    """Whether these bytes lie there already."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=target)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not modes.S_ISREG(status.st_mode) or status.st_size != len(content):
            return False
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(len(content) + 1) == content
    finally:
        os.close(descriptor)
