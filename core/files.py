"""Files that are whole after `kill -9` and after a power cut: written aside, brought onto the disk, then given their name."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

_UNFINISHED = ".part"
_STALE_S = 60.0
"""Older ones were left by a crash: another process may be at work on a younger one."""

_THROUGH_MEMORY = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What a kernel says that copies nothing by itself: between two disks it never does."""


def unfinished(path: Path) -> Path:
    """A hidden name beside `path` that nobody else is given, for what shall become it."""
    return path.with_name(f".{path.name}.{uuid4().hex}{_UNFINISHED}")


def write_durably(path: Path, content: bytes, *, mode: int = 0o644, replacing: bool = True) -> None:
    """Whole or not at all. Raises OSError; FileExistsError where the name is taken and `replacing` is not wanted."""
    temporary = unfinished(path)
    try:
        write_new(temporary, content, mode=mode)
        if replacing:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)
        sync([path.parent])
    finally:
        temporary.unlink(missing_ok=True)


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """A file that is not there yet; its bytes are on the disk on return, its name only after `sync` of the folder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(paths: Iterable[Path]) -> None:
    """Bring files and folders onto the disk: of a folder, the names in it."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """A folder with all that is in it, innermost first."""
    sync([*sorted(folder.rglob("*"), reverse=True), folder])


def make_folder(folder: Path) -> None:
    """With all above it that are missing, each of whose names is on the disk on return."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    sync(place.parent for place in missing)


def sweep(path: Path) -> int:
    """Remove what broken-off writes of this file left beside it. Returns how many."""
    left = 0
    for one in path.parent.glob(f".{path.name}.*{_UNFINISHED}"):
        with suppress(OSError):
            if time.time() - one.stat().st_mtime > _STALE_S:
                one.unlink()
                left += 1
    return left


def copy_sparse(source: Path, target: Path) -> None:
    """A new file with the bytes and times of another; its holes stay holes, and a file system that can share blocks does."""
    with source.open("rb") as read, target.open("xb") as written:
        size = os.fstat(read.fileno()).st_size
        at = 0
        while (begin := _next_bytes(read.fileno(), at, size)) < size:
            at = min(size, os.lseek(read.fileno(), begin, os.SEEK_HOLE))
            os.lseek(read.fileno(), begin, os.SEEK_SET)
            os.lseek(written.fileno(), begin, os.SEEK_SET)
            while begin < at and (copied := _copied(read.fileno(), written.fileno(), at - begin)):
                begin += copied
        written.truncate(size)
    shutil.copystat(source, target)


def copy_tree_sparse(source: Path, target: Path) -> None:
    """A folder into a new one."""
    shutil.copytree(source, target, copy_function=lambda one, other: copy_sparse(Path(one), Path(other)))


def _copied(source: int, target: int, count: int) -> int:
    """How many bytes were copied, from where both are; none at the end of the source."""
    try:
        return os.copy_file_range(source, target, count)
    except OSError as error:
        if error.errno not in _THROUGH_MEMORY:
            raise
    return os.sendfile(target, source, None, count)


def _next_bytes(descriptor: int, at: int, size: int) -> int:
    """Where the file's bytes go on after a hole; its end where there are none."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # which says that only a hole is left
            raise
        return size
