"""Where ratings are kept: SQLite in DATA_DIR, written by this service alone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from core.errors import Conflict, Unavailable

_ResultT = TypeVar("_ResultT")

_SCHEMA_VERSION = 1
_SCHEMA = """
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
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class Rating:
    """One rating of one search, or of one image that it showed. `jti` is the spent token's id."""

    jti: str
    rating: int
    image_id: str | None
    segment: int | None
    search_id: str
    query: Mapping[str, Any]
    model: str
    shown: Sequence[str]


class FeedbackStore:
    """An async context manager; every statement runs in the one thread that owns the connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            self._connection = await asyncio.get_running_loop().run_in_executor(self._executor, _open, self._path)
        except BaseException:
            self._executor.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, connection.close)
        self._executor.shutdown()

    async def add(self, rating: Rating) -> str:
        """Keep a rating and return its id. On return it survives a power cut. Raises Conflict when its token was spent before."""
        return await self._run(lambda connection: _insert(connection, rating))

    async def _run(self, work: Callable[[sqlite3.Connection], _ResultT]) -> _ResultT:
        connection = self._connection
        if connection is None:
            raise Unavailable("feedback is not being taken")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, connection)
        except sqlite3.OperationalError:  # disk full, read-only, locked
            raise Unavailable("feedback cannot be stored now", retry_after_s=30) from None


def _open(path: Path) -> sqlite3.Connection:
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


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA_VERSION:
        raise Unavailable(f"the feedback store was written by a newer release (schema {version})")
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")


def _insert(connection: sqlite3.Connection, rating: Rating) -> str:
    feedback_id = str(uuid4())
    row = (
        feedback_id,
        rating.jti,
        rating.rating,
        rating.image_id,
        rating.segment,
        rating.search_id,
        json.dumps(rating.query, ensure_ascii=False),
        rating.model,
        json.dumps(list(rating.shown)),
        datetime.now(UTC).isoformat(),
    )
    try:
        connection.execute("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise Conflict("this `jwt` was used already: each search is rated once, each match by its own token") from None
    return feedback_id
