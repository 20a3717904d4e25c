"""The feedback file: how it is opened, and how one of an earlier release becomes today's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from core.errors import Unavailable

_FIRST = """
CREATE TABLE feedback (
    feedback_id TEXT PRIMARY KEY,
    jti         TEXT NOT NULL UNIQUE,
    rating      INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 10),
    image_id    TEXT,
    segment     INTEGER,
    search_id   TEXT NOT NULL,
    query       TEXT NOT NULL,
    model       TEXT NOT NULL,
    shown       TEXT NOT NULL,
    created_at  TEXT NOT NULL
) STRICT;
CREATE INDEX feedback_by_search ON feedback (search_id);
CREATE INDEX feedback_by_image ON feedback (image_id) WHERE image_id IS NOT NULL;
"""

_RANKS_AND_CLIENTS = """
CREATE TABLE judged (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    feedback_id  TEXT NOT NULL UNIQUE,
    jti          TEXT NOT NULL UNIQUE,
    rating       INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 10),
    image_id     TEXT,
    segment      INTEGER,
    search_id    TEXT NOT NULL,
    query        TEXT NOT NULL,
    model        TEXT NOT NULL,
    model_name   TEXT,
    shown        TEXT NOT NULL,
    scores       TEXT NOT NULL DEFAULT '[]',
    first_rank   INTEGER NOT NULL DEFAULT 1,
    client       TEXT,
    rotation     REAL NOT NULL DEFAULT 0,
    query_vector BLOB,
    created_at   TEXT NOT NULL
) STRICT;
INSERT INTO judged (feedback_id, jti, rating, image_id, segment, search_id, query, model, shown, created_at)
    SELECT feedback_id, jti, rating, image_id, segment, search_id, query, model, shown, created_at FROM feedback ORDER BY rowid;
DROP TABLE feedback;
ALTER TABLE judged RENAME TO feedback;
CREATE INDEX feedback_by_time ON feedback (created_at);
"""
"""`sequence` is the order of the export and its cursor: a rowid without a name of its own may change with VACUUM."""

_STEPS = (_FIRST, _RANKS_AND_CLIENTS)
"""Step n leads from schema n to n + 1. A step that was released is never changed."""

VERSION = len(_STEPS)


def opened(path: Path) -> sqlite3.Connection:
    """A connection that writes, to a file of today's schema. Raises Unavailable for a file of a newer release."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # WAL's default, NORMAL, may lose the last ratings in a power cut
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def opened_for_reading(path: Path) -> sqlite3.Connection:
    """A connection beside the writing one, which it neither waits for nor holds up (WAL)."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
    )


def _migrate(connection: sqlite3.Connection) -> None:
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")  # and look again: another process may have been at it
    for statement in ";".join(_STEPS[_version(connection) :]).split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise Unavailable(f"the feedback store was written by a newer release (schema {version})")
    return version
