"""PostgreSQL from the event loop: work runs on named threads over a pool of connections, and on connections of its own."""

from __future__ import annotations

import asyncio
import random
import select
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

import psycopg
import structlog
from psycopg_pool import ConnectionPool

from core.errors import Unavailable
from core.sql.clock import DatabaseClock
from core.sql.migrations import migrate
from core.sql.place import DatabasePlace
from core.sql.postgres import AGAIN, PostgresConnection, Row, away, connected, options_of, refusal_of, rows

log = structlog.get_logger()

R = TypeVar("R")

_ATTEMPTS = 6
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 2.0
_START_PATIENCE_S = 60.0
_RECONNECT_S = 5.0
"""How long the pool by itself tries to replace a lost connection; after that the next one who wants one does."""

_BEAT_S = 2.0


class PostgresPool:
    """An async context manager. Entering brings the schema of `part` up; the database may come a minute later. `what` it holds, for people."""

    def __init__(self, place: DatabasePlace, steps: Sequence[str], *, part: str, what: str, durable: bool) -> None:
        self.place = place
        self.what = what
        self.durable = durable
        self._steps = steps
        self._part = part
        self._clock = DatabaseClock()
        self._executor = ThreadPoolExecutor(place.connections, thread_name_prefix=f"{part}-database")
        self._pool: ConnectionPool[psycopg.Connection[Row]] = ConnectionPool(
            place.url,
            kwargs={"row_factory": rows, **options_of(place, durable=durable)},
            min_size=1,
            max_size=place.connections,
            timeout=place.connect_timeout_s,
            reconnect_timeout=_RECONNECT_S,
            check=_look,
            open=False,
            name=part,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._brought_up()
        except BaseException:
            await self._release()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._release()

    async def _release(self) -> None:
        await asyncio.to_thread(self._executor.shutdown)
        await asyncio.to_thread(self._pool.close)

    async def _brought_up(self) -> None:
        """Waits for a database that is away, or goes away meanwhile. Raises NewerRelease, Unavailable."""
        give_up_at, pause_s = time.monotonic() + _START_PATIENCE_S, _FIRST_PAUSE_S
        while True:
            try:
                await self._on_thread(self._migrate)
                await self._on_thread(self._pool.open)
                await self.run(self._clock.follow)
            except (psycopg.Error, Unavailable) as error:
                refusal = error if isinstance(error, Unavailable) else refusal_of(error, self.what)
                if refusal is None or time.monotonic() > give_up_at:
                    raise refusal or error from error
                if pause_s >= _LONGEST_PAUSE_S:
                    log.warning("database_awaited", part=self._part, error=_told(error))
            else:
                return
            pause_s = await _paused(pause_s)

    def _migrate(self) -> None:
        with connected(self.place, durable=True) as session:
            migrate(session, self._steps, part=self._part)

    def now(self) -> float:
        """Unix seconds by the database's clock."""
        return self._clock.now()

    async def run(self, work: Callable[[PostgresConnection], R]) -> R:
        """Do it on a connection of the pool; what is rolled back for another's sake is done again. Raises Unavailable, StorageFull."""
        return await _done(lambda: self._on_thread(lambda: self._worked(work)), self.what)

    def _worked(self, work: Callable[[PostgresConnection], R]) -> R:
        with self._pool.connection() as session:
            connection = PostgresConnection(session)
            try:
                self._clock.follow(connection)
                return work(connection)
            except psycopg.Error:
                if session.closed:
                    self._doubt()
                raise

    def _doubt(self) -> None:
        """One lost connection tells of all: none is to fail its next user for the same reason."""
        self._clock.doubt()
        with suppress(psycopg.Error):
            self._pool.check()

    async def _on_thread(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class PostgresSession:
    """One connection of its own, with what lives and dies with it: locks and temporary tables. Once `lost`, it stays lost."""

    def __init__(self, place: DatabasePlace, *, name: str, what: str, durable: bool) -> None:
        self._place = place
        self._what = what
        self._durable = durable
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: PostgresConnection | None = None
        self._beat: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Raises Unavailable."""
        try:
            await self._on_thread(self._connect)
        except psycopg.Error as error:
            self._release()
            raise refusal_of(error, self._what) or error from error
        except BaseException:
            self._release()
            raise
        self._beat = asyncio.create_task(self._watch_over())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.lost.set()
        if self._beat is not None:
            self._beat.cancel()
        await asyncio.wrap_future(self._release())

    def _connect(self) -> None:
        self._connection = PostgresConnection(connected(self._place, durable=self._durable))

    def _release(self) -> Future[None]:
        """Behind whatever the thread does, even if nobody waits for it any more."""
        closing = self._executor.submit(self._close)
        self._executor.shutdown(wait=False)
        return closing

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def run(self, work: Callable[[PostgresConnection], R]) -> R:
        """Raises Unavailable, StorageFull."""
        connection = self._connection
        if connection is None or self.lost.is_set():
            raise away(self._what)
        try:
            return await _done(lambda: self._on_thread(lambda: work(connection)), self._what)
        finally:
            if connection.session.closed:
                self.lost.set()

    async def _watch_over(self) -> None:
        """A connection that nobody uses is lost as well when its server is."""
        while not self.lost.is_set():
            await asyncio.sleep(_BEAT_S)
            with suppress(Unavailable):
                await self.run(lambda connection: connection.execute("SELECT 1"))

    async def _on_thread(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _look(session: psycopg.Connection[Row]) -> None:
    """One that the server cut off while nobody used it says so: there is something to read. That costs no round trip. Raises psycopg.Error."""
    waiting = select.poll()
    waiting.register(session.fileno(), select.POLLIN)
    if waiting.poll(0):
        session.execute("SELECT 1")


async def _done(attempt: Callable[[], Awaitable[R]], what: str) -> R:
    """What is rolled back for another's sake is done again, some times. Raises Unavailable, StorageFull."""
    pause_s, left = _FIRST_PAUSE_S, _ATTEMPTS
    while True:
        left -= 1
        try:
            return await attempt()
        except psycopg.Error as error:
            if not isinstance(error, AGAIN) or not left:
                raise refusal_of(error, what) or error from error
            log.debug("transaction_repeated", error=type(error).__name__)
        pause_s = await _paused(pause_s)


async def _paused(pause_s: float) -> float:
    """Wait about so long; returns the next pause."""
    await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    return min(pause_s * 2, _LONGEST_PAUSE_S)


def _told(error: psycopg.Error | Unavailable) -> str:
    """psycopg's first line, which holds no password."""
    return (str(error).splitlines() or [type(error).__name__])[0]
