"""The feedback file: how it is opened, and how one of an earlier release becomes today's."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from core.databases import KeptDatabase
from core.files import make_folder
from core.schemas import StatePart
from searchsvc.feedback_rescue import rescue

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

FEEDBACK_NAME = "feedback.sqlite"

_KEPT_DAMAGED = 5


class FeedbackFile:
    """SQLite, whose ratings survive a power cut. Several search services may share it; who opens it alone looks whether it is whole."""

    def __init__(self, path: Path) -> None:
        self.database = KeptDatabase(path, _STEPS, part=StatePart.FEEDBACK, synchronous="FULL")
        self._lock_path = lock_path(path)
        self._lock: IO[bytes] | None = None

    def open(self) -> sqlite3.Connection:
        """A connection that writes, to today's schema; out of a damaged file come the ratings that can be read. Raises NewerRelease, OSError."""
        make_folder(self._lock_path.parent)
        with ExitStack() as undo:
            lock = undo.enter_context(self._lock_path.open("ab"))
            alone = _taken(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not alone:
                fcntl.flock(lock, fcntl.LOCK_SH)  # behind one who is repairing it
            connection = self.database.open(rescue, keep=_KEPT_DAMAGED) if alone else self.database.connect()
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._lock = lock
            undo.pop_all()
        return connection

    def close(self, connection: sqlite3.Connection) -> None:
        lock, self._lock = self._lock, None
        assert lock is not None  # noqa: S101 - it was opened
        with lock:
            self.database.close(connection, alone=_taken(lock, fcntl.LOCK_EX | fcntl.LOCK_NB))


def lock_path(path: Path) -> Path:
    """Whoever holds this file's lock uses the feedback file."""
    return path.with_name(f"{path.name}.lock")


def _taken(lock: IO[bytes], operation: int) -> bool:
    try:
        fcntl.flock(lock, operation)
    except BlockingIOError:
        return False
    return True


def opened_for_reading(path: Path) -> sqlite3.Connection:
    """A connection beside the writing one, which it neither waits for nor holds up (WAL)."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
    )
