"""The ledger in PostgreSQL, for any number of processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from core.errors import Unavailable
from core.sql.connection import Connection
from core.sql.place import DatabasePlace
from core.sql.pool import PostgresPool, PostgresSession
from watcher import database
from watcher.ledger import Watch

P = ParamSpec("P")
R = TypeVar("R")

_WHAT = "the ledger"
WATCH = "imagesearch watch"
"""The lock of whoever notices."""

_FIRST_LOOK_S = 0.02
_LONGEST_LOOK_S = 0.5
_HOLD_PATIENCE_S = 60.0


class SharedLedger:
    """Its watch is a lock on a connection of its own, and so is each image that is held: a death, or a lost connection, gives both back.

    What was written in the last half second before the database's machine died may be missing, which leases and the reconcile mend.
    """

    is_shared = True

    def __init__(self, place: DatabasePlace) -> None:
        self._place = place
        self._pool = PostgresPool(place, database.postgres_steps(), part="ledger", what=_WHAT, durable=False)
        self._holding: PostgresSession | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._holding is not None:
            await self._holding.__aexit__(None, None, None)
        await self._pool.__aexit__(kind, error, trace)

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._pool.run(lambda connection: operation(connection, *args, **kwargs))

    def now(self) -> float:
        return self._pool.now()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Watch | None]:
        async with PostgresSession(self._place, name="watch", what=_WHAT, durable=False) as session:
            taken = await session.run(lambda connection: connection.try_lock(WATCH))
            yield Watch(_WatchLedger(session, self.now), session.lost) if taken else None

    @asynccontextmanager
    async def hold(self, image_id: str) -> AsyncIterator[None]:
        name = f"imagesearch image {image_id}"
        session = await self._session()
        try:
            await self._taken(session, name)
            yield
        finally:  # a look that was broken off may have found it free
            with suppress(Unavailable):  # with the connection the lock is gone as well
                await asyncio.shield(session.run(lambda connection: connection.unlock(name)))

    async def _session(self) -> PostgresSession:
        """The connection that has the locks of this process; another one where it was lost."""
        async with self._connecting:
            if self._holding is not None and self._holding.lost.is_set():
                lost, self._holding = self._holding, None
                await lost.__aexit__(None, None, None)
            if self._holding is None:
                session = PostgresSession(self._place, name="image-locks", what=_WHAT, durable=False)
                self._holding = await session.__aenter__()
            return self._holding

    async def _taken(self, session: PostgresSession, name: str) -> None:
        """Looked at again and again rather than waited for, so that one image keeps no other waiting."""
        pause_s = _FIRST_LOOK_S
        try:
            async with asyncio.timeout(_HOLD_PATIENCE_S):
                while not await session.run(lambda connection: connection.try_lock(name)):
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                    pause_s = min(pause_s * 2, _LONGEST_LOOK_S)
        except TimeoutError:
            raise Unavailable("the picture is in other hands") from None


class _WatchLedger:
    """Operations on the very connection that has the watch."""

    def __init__(self, session: PostgresSession, now: Callable[[], float]) -> None:
        self._session = session
        self._now = now

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._session.run(lambda connection: operation(connection, *args, **kwargs))

    def now(self) -> float:
        return self._now()
