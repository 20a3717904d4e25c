"""Bytes of a picture's row in the ledger and of a rating, in SQLite and in PostgreSQL, written as the product writes them."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import psycopg

from core.sql.connection import Connection
from core.sql.place import DatabasePlace
from searchsvc.feedback import FeedbackStore, Rating
from searchsvc.feedback_file import FileFeedback
from searchsvc.feedback_schema import FEEDBACK_NAME
from searchsvc.feedback_shared import SharedFeedback
from tests.postgres import PostgresServer
from watcher import jobs, locations
from watcher.database import LEDGER_NAME
from watcher.jobs import Outcome
from watcher.ledger import FileLedger, Ledger
from watcher.locations import Admission, FileStat
from watcher.shared_ledger import SharedLedger

_FEW, _MANY = 2_000, 10_000
_FEW_RATINGS, _MANY_RATINGS = 200, 1_000
_FINGERPRINT = "0123456789abcdef"


class Rows(NamedTuple):
    """Bytes of one, indexes included."""

    ledger_sqlite: float
    ledger_postgres: float
    rating_sqlite: float
    rating_postgres: float
    wal_postgres: float
    """Of one picture's way to indexed; without whole pages after checkpoints, which depend on how often those are."""


def measured(folder: Path, server: PostgresServer) -> Rows:
    return asyncio.run(_measured(folder, server))


async def _measured(folder: Path, server: PostgresServer) -> Rows:
    url = server.make_database("sizing")
    place = DatabasePlace(url)
    async with FileLedger(folder) as file_ledger, SharedLedger(place) as shared_ledger:
        sqlite = await _a_row(
            _FEW, _MANY, lambda n, to: _indexed(file_ledger, n, to), lambda: _sqlite_bytes(folder / LEDGER_NAME)
        )
        postgres = await _a_row(
            _FEW, _MANY, lambda n, to: _indexed(shared_ledger, n, to), lambda: _postgres_bytes(url, "images", "paths")
        )
        before = _wal_position(url)
        await _indexed(shared_ledger, _MANY, _MANY + _FEW)
        wal = (_wal_position(url) - before) / _FEW
    async with (
        FeedbackStore(FileFeedback(folder / FEEDBACK_NAME)) as file_feedback,
        FeedbackStore(SharedFeedback(place)) as shared_feedback,
    ):
        in_file = await _a_row(
            _FEW_RATINGS, _MANY_RATINGS, lambda n, to: _rated(file_feedback, n, to), lambda: _sqlite_bytes(folder / FEEDBACK_NAME)
        )
        in_database = await _a_row(
            _FEW_RATINGS, _MANY_RATINGS, lambda n, to: _rated(shared_feedback, n, to), lambda: _postgres_bytes(url, "feedback")
        )
    return Rows(sqlite, postgres, in_file, in_database, wal)


async def _a_row(few: int, many: int, fill: Callable[[int, int], Awaitable[None]], size: Callable[[], int]) -> float:
    """What each further one took."""
    await fill(0, few)
    before = size()
    await fill(few, many)
    return (size() - before) / (many - few)


async def _indexed(ledger: Ledger, first: int, end: int) -> None:
    """Noticed, claimed, and completed, one after the other."""

    def drive(connection: Connection) -> None:
        while (job := jobs.claim(connection, now, 60.0)) is not None:
            version = jobs.places(connection, job.image_id).version
            jobs.complete(connection, job, Outcome(_FINGERPRINT, 1600, 1200, 4, version), now)

    now = ledger.now()
    for start in range(first, end, 500):
        await ledger.run(locations.admit, [_admission(n, now) for n in range(start, min(end, start + 500))], now)
        await ledger.run(drive)


def _admission(n: int, now: float) -> Admission:
    path = f"photos/{n // 500:05d} holidays/img_{n:08d}.jpg"
    return Admission(path, FileStat(400_000 + n, 1_600_000_000_000_000_000 + n, 10**7 + n), _image_id(n), noticed_at=now)


def _image_id(n: int) -> str:
    return hashlib.sha256(f"{n}".encode()).hexdigest()


async def _rated(store: FeedbackStore, first: int, end: int) -> None:
    """Of one of ten matches, by words."""
    random = np.random.default_rng(first)
    for n in range(first, end):
        shown = [_image_id(10 * n + rank) for rank in range(10)]
        rating = Rating(
            jti=str(uuid4()),
            rating=1 + n % 10,
            image_id=shown[n % 10],
            segment=None,
            search_id=str(uuid4()),
            query={"text": f"a red bag on chair {n}", "scope": "both", "top_k": 10},
            model="clip-vit-base-patch32-3d74acf9-1f0c2b9a",
            shown=shown,
            model_name="CLIP",
            scores=[round(0.3 - rank / 100, 6) for rank in range(10)],
            client=_image_id(n % 100)[:32],
            query_vector=random.normal(size=512).astype(np.float32),
        )
        await store.add(rating)


def _sqlite_bytes(path: Path) -> int:
    """With its journal written back."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
        return pages * int(connection.execute("PRAGMA page_size").fetchone()[0])


def _postgres_bytes(url: str, *tables: str) -> int:
    """With indexes, and what later rows will take of room that was given back."""
    with psycopg.connect(url, autocommit=True) as connection:
        for table in tables:
            connection.execute(f"VACUUM {table}".encode())
        return sum(int(_one(connection, f"SELECT pg_total_relation_size('{table}')")) for table in tables)


def _wal_position(url: str) -> int:
    with psycopg.connect(url) as connection:
        return int(_one(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))


def _one(connection: psycopg.Connection[tuple[object, ...]], sql: str) -> int:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has a row
    return int(str(row[0]).split(".", maxsplit=1)[0])
