"""Ratings in SQLite in DATA_DIR, and which home the settings name."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from core.errors import Unavailable
from core.room import refusal_of
from core.settings import FolderSettings
from core.sql.connection import Connection, SqliteConnection
from searchsvc.feedback import FeedbackStore
from searchsvc.feedback_schema import FEEDBACK_NAME, FeedbackFile, opened_for_reading

_ResultT = TypeVar("_ResultT")


def feedback_of(settings: FolderSettings) -> FeedbackStore:
    """Where the settings have it. Raises DriverMissing, UnreadableUrl."""
    place = settings.database
    if place is None:
        return FeedbackStore(FileFeedback(settings.data_dir / FEEDBACK_NAME))
    from searchsvc.feedback_shared import SharedFeedback  # noqa: PLC0415 - its package is there only where it is wanted

    return FeedbackStore(SharedFeedback(place))


class FileFeedback:
    """Each of its two connections, for writing and for reading, is owned by one thread."""

    is_shared = False

    def __init__(self, path: Path) -> None:
        file = FeedbackFile(path)
        self._writer = _Connection("feedback", file.open, file.close)
        self._reader = _Connection("feedback-reader", lambda: opened_for_reading(path), SqliteConnection.close)

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

    async def write(self, work: Callable[[Connection], _ResultT]) -> _ResultT:
        return await self._writer.run(work)

    async def read(self, work: Callable[[Connection], _ResultT]) -> _ResultT:
        return await self._reader.run(work)

    def now(self) -> float:
        return time.time()


class _Connection:
    """SQLite in a thread of its own. Raises Unavailable while it is not open, and for a failing disk; StorageFull for a full one."""

    def __init__(self, name: str, connect: Callable[[], SqliteConnection], release: Callable[[SqliteConnection], None]) -> None:
        self._connect = connect
        self._release = release
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: SqliteConnection | None = None

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

    async def run(self, work: Callable[[SqliteConnection], _ResultT]) -> _ResultT:
        connection = self._connection
        if connection is None:
            raise Unavailable("feedback is not being taken")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, connection)
        except sqlite3.OperationalError as error:
            unavailable = Unavailable("feedback cannot be stored or read now", retry_after_s=30)
            raise refusal_of(error, "the feedback") or unavailable from None
