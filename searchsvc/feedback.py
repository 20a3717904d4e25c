"""Where ratings are kept: SQLite in DATA_DIR, written by this service alone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import numpy as np

from core.errors import Conflict, Unavailable
from core.room import refusal_of
from core.schemas import Vector
from searchsvc.feedback_schema import FeedbackFile, opened_for_reading

_ResultT = TypeVar("_ResultT")

_PAGE = 500
_COLUMNS = (
    "feedback_id, jti, rating, image_id, segment, search_id, query, model, model_name, shown, scores, first_rank, client,"
    " rotation, query_vector, created_at"
)


@dataclass(frozen=True, slots=True)
class Rating:
    """One rating of one search, or of one image that it showed. `jti` is the spent token's id, `model` the collection asked.

    `shown` are the distinct images in order, the first at rank `first_rank` (from 1); `scores` are theirs, or empty. `client` is a
    pseudonym (`searchsvc.clients`). `rotation` is how far earlier feedback had turned the query, in degrees.
    """

    jti: str
    rating: int
    image_id: str | None
    segment: int | None
    search_id: str
    query: Mapping[str, Any]
    model: str
    shown: Sequence[str]
    model_name: str | None = None
    scores: Sequence[float] = ()
    first_rank: int = 1
    client: str | None = None
    rotation: float = 0.0
    query_vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class KeptRating:
    """A rating as it was stored: `sequence` rises with each one."""

    sequence: int
    feedback_id: str
    created_at: str
    rating: Rating


class FeedbackStore:
    """An async context manager; each of its two connections, for writing and for reading, is owned by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        file = FeedbackFile(path)
        self._writer = _Connection("feedback", file.open, file.close)
        self._reader = _Connection("feedback-reader", lambda: opened_for_reading(path), sqlite3.Connection.close)

    async def __aenter__(self) -> Self:
        await self._writer.open()
        try:
            await self._reader.open()
        except BaseException:
            await self._writer.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._reader.close()
        await self._writer.close()

    async def add(self, rating: Rating) -> str:
        """Keep a rating and return its id. On return it survives a power cut. Raises Conflict when its token was spent before."""
        return await self._writer.run(lambda connection: _insert(connection, rating))

    async def pages(self, *, after: int = 0, since: datetime | None = None) -> AsyncIterator[list[KeptRating]]:
        """What is there now, in the order it came, in pages of a few hundred; ratings that arrive meanwhile are left for the next time."""
        first = "" if since is None else since.astimezone(UTC).isoformat()
        last = await self._reader.run(_newest)
        while page := await self._reader.run(lambda connection, after=after: _page(connection, after, last, first)):  # type: ignore[misc]
            after = page[-1].sequence
            yield page

    async def before_last(self, judged: int) -> int:
        """The sequence after which the newest `judged` ratings of images begin."""
        return await self._reader.run(lambda connection: _before_last(connection, judged))


class _Connection:
    """SQLite in a thread of its own. Raises Unavailable while it is not open, and for a failing disk; StorageFull for a full one."""

    def __init__(
        self, name: str, connect: Callable[[], sqlite3.Connection], release: Callable[[sqlite3.Connection], None]
    ) -> None:
        self._connect = connect
        self._release = release
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        try:
            self._connection = await asyncio.get_running_loop().run_in_executor(self._executor, self._connect)
        except BaseException:
            self._executor.shutdown(wait=False)
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._release, connection)
        self._executor.shutdown()

    async def run(self, work: Callable[[sqlite3.Connection], _ResultT]) -> _ResultT:
        connection = self._connection
        if connection is None:
            raise Unavailable("feedback is not being taken")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, connection)
        except sqlite3.OperationalError as error:
            unavailable = Unavailable("feedback cannot be stored or read now", retry_after_s=30)
            raise refusal_of(error, "the feedback") or unavailable from None


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
        rating.model_name,
        json.dumps(list(rating.shown)),
        json.dumps(list(rating.scores)),
        rating.first_rank,
        rating.client,
        rating.rotation,
        None if rating.query_vector is None else np.asarray(rating.query_vector, dtype="<f4").tobytes(),
        datetime.now(UTC).isoformat(),
    )
    try:
        connection.execute(f"INSERT INTO feedback ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 - our own words
    except sqlite3.IntegrityError:
        raise Conflict("this `jwt` was used already: each search is rated once, each match by its own token") from None
    return feedback_id


def _newest(connection: sqlite3.Connection) -> int:
    newest: int = connection.execute("SELECT coalesce(max(sequence), 0) FROM feedback").fetchone()[0]
    return newest


def _page(connection: sqlite3.Connection, after: int, last: int, first_time: str) -> list[KeptRating]:
    rows = connection.execute(
        f"SELECT sequence, {_COLUMNS} FROM feedback WHERE sequence > ? AND sequence <= ? AND created_at >= ?"  # noqa: S608
        " ORDER BY sequence LIMIT ?",
        (after, last, first_time, _PAGE),
    )
    return [_kept(row) for row in rows]


def _before_last(connection: sqlite3.Connection, judged: int) -> int:
    row = connection.execute(
        "SELECT sequence FROM feedback WHERE image_id IS NOT NULL AND query_vector IS NOT NULL ORDER BY sequence DESC LIMIT 1 OFFSET ?",
        (judged,),
    ).fetchone()
    return int(row[0]) if row else 0


def _kept(row: Sequence[Any]) -> KeptRating:
    sequence, feedback_id, jti, rating, image_id, segment, search_id, query, model, model_name = row[:10]
    shown, scores, first_rank, client, rotation, query_vector, created_at = row[10:]
    return KeptRating(
        sequence,
        feedback_id,
        created_at,
        Rating(
            jti=jti,
            rating=rating,
            image_id=image_id,
            segment=segment,
            search_id=search_id,
            query=json.loads(query),
            model=model,
            shown=json.loads(shown),
            model_name=model_name,
            scores=json.loads(scores),
            first_rank=first_rank,
            client=client,
            rotation=rotation,
            query_vector=None if query_vector is None else np.frombuffer(query_vector, dtype="<f4").astype(np.float32),
        ),
    )
