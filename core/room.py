"""Room on the disks that hold what the product keeps: looked for before a write that could not bear to find none.

Qdrant Edge maps its files into memory. A write to a page that finds no room on the disk ends the process (SIGBUS), search included,
so nothing is written there unless there is room to spare. SQLite and plain files answer with an error, and need no look ahead.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import StorageFull, Unavailable

LEAST_FREE_BYTES = 64 * 2**20
"""Far more than one write takes, and others use up between two looks."""

_RETRY_AFTER_S = 30.0
_OF_THE_DISK = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}
)


@dataclass(frozen=True, slots=True)
class Rooms:
    """Folders by what lies in them, without room in which nothing can be taken in."""

    folders: Mapping[str, Path]

    def check(self) -> None:
        """Raises StorageFull."""
        for what, folder in self.folders.items():
            check_room(folder, what)


def check_room(folder: Path, what: str, *, least_bytes: int = LEAST_FREE_BYTES) -> None:
    """Raises StorageFull, which names `what` lies there. Takes microseconds on a local disk; a folder that is not there has room."""
    try:
        free = shutil.disk_usage(folder).free
    except FileNotFoundError:
        return
    if free < least_bytes:
        raise storage_full(what)


def storage_full(what: str) -> StorageFull:
    """In the same words each time: how little is left differs at each look, and would be told as news."""
    return StorageFull(f"the disk that holds {what} is full", retry_after_s=_RETRY_AFTER_S)


def lacks_room(error: OSError) -> bool:
    """Whether a write to a file failed because its disk, or somebody's share of it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def refusal_of(error: sqlite3.OperationalError, what: str) -> Unavailable | None:
    """What it means that a database could not be written or read; None if the disk is not to blame."""
    code = error.sqlite_errorcode & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return storage_full(what)
    if code in _OF_THE_DISK:
        return Unavailable(f"{what} cannot be written or read now: {error.sqlite_errorname}", retry_after_s=_RETRY_AFTER_S)
    return None
