"""Ratings: what is kept of each, and how it is written and read in either home."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from uuid import uuid4

import numpy as np

from core.errors import Conflict
from core.schemas import Vector
from core.sql.connection import Connection, Turn

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


@dataclass(frozen=True, slots=True)
class RecentSearch:
    """What a rating of a search needs to know of it, and its token is too small for. `vector` is the query before any feedback."""

    vector: Vector
    shown: Sequence[str]
    scores: Sequence[float]
    first_rank: int


class FeedbackHome(Protocol):
    """Where ratings are kept: in a file (`feedback_file`), or in a database that several services share (`feedback_shared`)."""

    @property
    def is_shared(self) -> bool:
        """Whether other services write ratings as well, and answer searches that are rated here."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def write(self, work: Callable[[Connection], _ResultT]) -> _ResultT:
        """On return it survives a power cut. Raises Unavailable, StorageFull."""
        ...

    async def read(self, work: Callable[[Connection], _ResultT]) -> _ResultT:
        """Neither waits for who writes nor holds them up. Raises Unavailable."""
        ...

    def now(self) -> float:
        """Unix seconds."""
        ...


class FeedbackStore:
    """An async context manager around its home."""

    def __init__(self, home: FeedbackHome) -> None:
        self._home = home

    @property
    def is_shared(self) -> bool:
        """Whether ratings come from other services as well."""
        return self._home.is_shared

    async def __aenter__(self) -> Self:
        await self._home.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._home.__aexit__(kind, error, trace)

    async def add(self, rating: Rating) -> str:
        """Keep a rating and return its id. On return it survives a power cut. Raises Conflict when its token was spent before, anywhere."""
        at = datetime.fromtimestamp(self._home.now(), UTC)
        return await self._home.write(lambda connection: _insert(connection, rating, at))

    async def pages(self, *, after: int = 0, since: datetime | None = None) -> AsyncIterator[list[KeptRating]]:
        """What is there now, in the order it came, in pages of a few hundred; ratings that arrive meanwhile are left for the next time."""
        first = "" if since is None else since.astimezone(UTC).isoformat()
        last = await self._home.read(_newest)
        while page := await self._home.read(lambda connection, after=after: _page(connection, after, last, first)):  # type: ignore[misc]
            after = page[-1].sequence
            yield page

    async def before_last(self, judged: int) -> int:
        """The sequence after which the newest `judged` ratings of images begin."""
        return await self._home.read(lambda connection: _before_last(connection, judged))

    # --- searches that other services may be told the ratings of; to be called where the home is shared

    async def remember(self, searches: Mapping[str, RecentSearch]) -> None:
        """Keep them for a while, by id. A crash of the database may lose them."""
        await self._home.write(lambda connection: _remember(connection, searches))

    async def recall(self, search_id: str) -> RecentSearch | None:
        return await self._home.read(lambda connection: _recall(connection, search_id))

    async def forget_searches(self, but_newest: int) -> None:
        """Those before the newest ones."""
        await self._home.write(lambda connection: _forget_searches(connection, but_newest))


def _insert(connection: Connection, rating: Rating, at: datetime) -> str:
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
        None if rating.query_vector is None else _bytes_of(rating.query_vector),
        at.isoformat(),
    )
    statement = f"INSERT INTO feedback ({_COLUMNS}) VALUES ({', '.join('?' * len(row))}) ON CONFLICT DO NOTHING"  # noqa: S608 - our own words
    with connection.transaction(turn=Turn.FEEDBACK):
        if connection.execute(statement, row).rowcount != 1:
            raise Conflict("this `jwt` was used already: each search is rated once, each match by its own token")
    return feedback_id


def _newest(connection: Connection) -> int:
    newest: int = connection.execute("SELECT coalesce(max(sequence), 0) FROM feedback").fetchone()[0]
    return newest


def _page(connection: Connection, after: int, last: int, first_time: str) -> list[KeptRating]:
    rows = connection.execute(
        f"SELECT sequence, {_COLUMNS} FROM feedback WHERE sequence > ? AND sequence <= ? AND created_at >= ?"  # noqa: S608
        " ORDER BY sequence LIMIT ?",
        (after, last, first_time, _PAGE),
    )
    return [_kept(row) for row in rows]


def _before_last(connection: Connection, judged: int) -> int:
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
            query_vector=None if query_vector is None else _vector_of(query_vector),
        ),
    )


def _remember(connection: Connection, searches: Mapping[str, RecentSearch]) -> None:
    rows = [
        (search_id, _bytes_of(search.vector), json.dumps(list(search.shown)), json.dumps(list(search.scores)), search.first_rank)
        for search_id, search in searches.items()
    ]
    statement = (
        "INSERT INTO searches (search_id, vector, shown, scores, first_rank) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    )
    connection.executemany(statement, rows)


def _recall(connection: Connection, search_id: str) -> RecentSearch | None:
    row = connection.execute(
        "SELECT vector, shown, scores, first_rank FROM searches WHERE search_id = ?", (search_id,)
    ).fetchone()
    if row is None:
        return None
    vector, shown, scores, first_rank = row
    return RecentSearch(_vector_of(vector), json.loads(shown), json.loads(scores), first_rank)


def _forget_searches(connection: Connection, but_newest: int) -> None:
    connection.execute("DELETE FROM searches WHERE number <= (SELECT max(number) FROM searches) - ?", (but_newest,))


def _bytes_of(vector: Vector) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()


def _vector_of(stored: bytes) -> Vector:
    return np.frombuffer(stored, dtype="<f4").astype(np.float32)
