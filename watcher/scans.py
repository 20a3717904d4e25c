"""Mark and sweep in the ledger: what a walk over the disk saw, against what is known. The marks lie in a temporary table."""

from __future__ import annotations

from collections.abc import Sequence

from core.sql.connection import Connection
from watcher.locations import RECHECKED, FileStat, bounds


def begin(connection: Connection) -> None:
    """Start a scan with no marks. One scan at a time."""
    with connection.transaction():
        connection.execute("DROP TABLE IF EXISTS temp.seen")
        connection.execute(
            'CREATE TEMP TABLE seen (path TEXT /*pg COLLATE "C" */ PRIMARY KEY, size BIGINT, mtime_ns BIGINT, inode BIGINT) WITHOUT ROWID'
        )


def mark(connection: Connection, found: Sequence[tuple[str, FileStat]]) -> None:
    """These files are there."""
    with connection.transaction():
        connection.executemany(
            "INSERT INTO temp.seen VALUES (?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET"
            " size = excluded.size, mtime_ns = excluded.mtime_ns, inode = excluded.inode",
            [(path, *stat) for path, stat in found],
        )


def changed(connection: Connection, after: str, limit: int) -> list[str]:
    """Marked paths that are new, or whose file is not the one that is known; in order, beyond `after`."""
    rows = connection.execute(
        "SELECT seen.path FROM temp.seen LEFT JOIN paths USING (path) WHERE seen.path > ? AND (paths.path IS NULL"
        " OR paths.size <> seen.size OR paths.mtime_ns <> seen.mtime_ns OR paths.inode <> seen.inode"
        " OR paths.reason IN (?, ?)) ORDER BY seen.path LIMIT ?",
        (after, *RECHECKED, limit),
    )
    return [row["path"] for row in rows]


def vanished(connection: Connection, folder: str, after: str, limit: int) -> list[str]:
    """Known paths within the folder that were not marked; in order, beyond `after`."""
    first, end = bounds(folder)
    rows = connection.execute(
        "SELECT path FROM paths WHERE path > ? AND path >= ? AND path < ?"
        " AND NOT EXISTS (SELECT 1 FROM temp.seen WHERE seen.path = paths.path) ORDER BY path LIMIT ?",
        (after, first, end, limit),
    )
    return [row["path"] for row in rows]


def end(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("DROP TABLE IF EXISTS temp.seen")
