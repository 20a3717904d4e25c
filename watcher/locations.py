"""Paths in the ledger: which file is which image, and which file never became one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from core.errors import Reason
from core.sql.connection import Connection, Turn

RECHECKED = (Reason.PERMISSION_DENIED.value, Reason.UNREADABLE.value)
"""Failures that may pass without the file's changing: looked at again by every reconcile."""

ASKED_FOR_PRIORITY = 2
_PROMPT_PRIORITY = 1
_PROMPT_AT_MOST = 32
"""Newly copied pictures overtake a backfill as long as they are few; a copied tree is a backfill itself."""

_NEVER = -1
"""An mtime that no file has."""


class FileStat(NamedTuple):
    """What `stat` tells of a file: enough to know that it is the same, unchanged file."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Location:
    """What the ledger knows of a path."""

    stat: FileStat
    image_id: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Admission:
    """A settled file whose content is known."""

    path: str
    stat: FileStat
    image_id: str
    noticed_at: float
    priority: int = 0
    backfill: bool = False
    """It is one of many, as whoever brings it says: it overtakes nothing, whatever the observer took it for."""


def known(connection: Connection, paths: Sequence[str]) -> dict[str, Location]:
    """The paths among these that the ledger knows."""
    rows = connection.execute("SELECT * FROM paths WHERE path IN (SELECT value FROM json_each(?))", (json.dumps(paths),))
    return {
        row["path"]: Location(FileStat(row["size"], row["mtime_ns"], row["inode"]), row["image_id"], row["reason"])
        for row in rows
    }


def twins(connection: Connection, files: Iterable[tuple[str, FileStat]]) -> dict[str, str]:
    """The image id of each file that is another path's file, moved or hard-linked: no need to read it.

    The same inode, size and mtime say so. Inodes are used again and some tools copy whole-second times, so that such a file
    must have kept its name as well.
    """
    found: dict[str, str] = {}
    for path, stat in files:
        rows = connection.execute(
            "SELECT path, image_id FROM paths WHERE inode = ? AND size = ? AND mtime_ns = ? AND image_id IS NOT NULL",
            (stat.inode, stat.size, stat.mtime_ns),
        ).fetchall()
        certain = stat.inode != 0 and stat.mtime_ns % 1_000_000_000 != 0
        name = PurePosixPath(path).name
        ids = {row["image_id"] for row in rows if certain or (stat.inode != 0 and PurePosixPath(row["path"]).name == name)}
        if len(ids) == 1:
            found[path] = ids.pop()
    return found


def names_of(connection: Connection, inodes: Iterable[int]) -> dict[str, FileStat]:
    """The paths that are known as one of these files, each with what is known of it."""
    rows = connection.execute(
        "SELECT path, size, mtime_ns, inode FROM paths WHERE inode IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
        (json.dumps([inode for inode in inodes if inode]),),
    )
    return {row["path"]: FileStat(row["size"], row["mtime_ns"], row["inode"]) for row in rows}


def admit(connection: Connection, admissions: Sequence[Admission], now: float) -> None:
    """Record which image lies at each path; new images are pending. What lay there before may become an orphan."""
    with connection.transaction(turn=Turn.PATHS):
        for admission in admissions:
            _admit(connection, admission, now)


def _admit(connection: Connection, admission: Admission, now: float) -> None:
    earlier = connection.execute("SELECT image_id FROM paths WHERE path = ?", (admission.path,)).fetchone()
    is_news = earlier is None or earlier["image_id"] != admission.image_id
    connection.execute(
        "INSERT INTO images (image_id, state, bytes, noticed_at, priority) VALUES (?, 'pending', ?, ?, ?)"
        " ON CONFLICT (image_id) DO UPDATE SET priority = excluded.priority"
        " WHERE images.state = 'pending' AND images.crashes = 0 AND images.priority < excluded.priority AND ?",
        (
            admission.image_id,
            admission.stat.size,
            admission.noticed_at,
            _priority(connection, admission.priority),
            is_news or admission.priority == ASKED_FOR_PRIORITY,
        ),
    )
    if admission.backfill:
        connection.execute(
            "UPDATE images SET priority = 0 WHERE image_id = ? AND state = 'pending' AND priority = ?",
            (admission.image_id, _PROMPT_PRIORITY),
        )
    _write_path(connection, admission.path, admission.stat, now, image_id=admission.image_id)
    if is_news:
        connection.execute(
            "UPDATE images SET paths_version = paths_version + 1, orphaned_at = NULL WHERE image_id = ?", (admission.image_id,)
        )
        if earlier is not None:
            _path_left(connection, earlier["image_id"], now)


def _priority(connection: Connection, wanted: int) -> int:
    if wanted != _PROMPT_PRIORITY:
        return wanted
    (prompt,) = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM images INDEXED BY images_to_claim"
        " WHERE state = 'pending' AND orphaned_at IS NULL AND priority = ? LIMIT ?) AS prompt",
        (_PROMPT_PRIORITY, _PROMPT_AT_MOST),
    ).fetchone()
    return wanted if prompt < _PROMPT_AT_MOST else 0


def refuse(connection: Connection, path: str, stat: FileStat, reason: Reason, detail: str, *, now: float) -> bool:
    """Record why the file at this path never became an image. False when that was known."""
    with connection.transaction(turn=Turn.PATHS):
        earlier = connection.execute("SELECT * FROM paths WHERE path = ?", (path,)).fetchone()
        if earlier is not None and earlier["reason"] == reason.value and tuple(earlier[key] for key in FileStat._fields) == stat:
            return False
        _write_path(connection, path, stat, now, reason=reason.value, detail=detail)
        if earlier is not None:
            _path_left(connection, earlier["image_id"], now)
    return True


def forget(connection: Connection, paths: Sequence[str], now: float) -> int:
    """The files at these paths are gone. `now` is when their images became orphans if these were their last paths."""
    with connection.transaction(turn=Turn.PATHS):
        gone = 0
        for path in paths:
            for row in connection.execute("DELETE FROM paths WHERE path = ? RETURNING image_id", (path,)).fetchall():
                gone += 1
                _path_left(connection, row["image_id"], now)
    return gone


def doubt(connection: Connection, path: str, image_id: str) -> None:
    """What lies there was read, and is not the image, whatever its stat says: whoever looks next takes no stat's word for it."""
    connection.execute(
        "UPDATE paths SET mtime_ns = ? WHERE path = ? AND image_id = ? AND mtime_ns <> ?", (_NEVER, path, image_id, _NEVER)
    )


def _path_left(connection: Connection, image_id: str | None, now: float) -> None:
    if image_id is not None:
        connection.execute(
            "UPDATE images SET paths_version = paths_version + 1, orphaned_at ="
            " CASE WHEN EXISTS (SELECT 1 FROM paths WHERE paths.image_id = images.image_id) THEN NULL"
            " ELSE coalesce(orphaned_at, ?) END WHERE image_id = ?",
            (now, image_id),
        )


def _write_path(
    connection: Connection,
    path: str,
    stat: FileStat,
    now: float,
    *,
    image_id: str | None = None,
    reason: str | None = None,
    detail: str | None = None,
) -> None:
    connection.execute(
        "INSERT INTO paths (path, image_id, size, mtime_ns, inode, reason, detail, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (path) DO UPDATE SET image_id = excluded.image_id, size = excluded.size, mtime_ns = excluded.mtime_ns,"
        " inode = excluded.inode, reason = excluded.reason, detail = excluded.detail, seen_at = excluded.seen_at",
        (path, image_id, stat.size, stat.mtime_ns, stat.inode, reason, detail, now),
    )


def has_below(connection: Connection, folder: str) -> bool:
    """Whether the ledger knows anything within that folder."""
    return bool(sample_below(connection, folder, 1))


def folders(connection: Connection, paths: Sequence[str]) -> list[str]:
    """Those among these within which the ledger knows anything."""
    rows = connection.execute(
        "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM paths WHERE path >= value || '/' AND path < value || '0')",
        (json.dumps(list(paths)),),
    )
    return [row["value"] for row in rows]


def sample_below(connection: Connection, folder: str, limit: int) -> list[str]:
    """Some known paths within that folder; '' is the whole watched one."""
    first, end = bounds(folder)
    rows = connection.execute("SELECT path FROM paths WHERE path >= ? AND path < ? LIMIT ?", (first, end, limit))
    return [row["path"] for row in rows]


def bounds(folder: str) -> tuple[str, str]:
    """The half-open range of paths within a folder, in byte order."""
    return (f"{folder}/", f"{folder}0") if folder else ("", "\U0010ffff")


# --- the file systems that the folder spans ----------------------------------------------------------------------------


def mounts(connection: Connection) -> dict[str, int]:
    """Device number by mount point."""
    return {row["path"]: row["device"] for row in connection.execute("SELECT path, device FROM mounts")}


def record_mounts(connection: Connection, devices: dict[str, int]) -> None:
    """Remember these as they are now, and those within lost mounts as they were."""
    with connection.transaction():
        connection.execute("DELETE FROM mounts")
        connection.executemany("INSERT INTO mounts (path, device) VALUES (?, ?)", list(devices.items()))
