"""Ratings in PostgreSQL, for any number of search services: a token that was spent at one is spent at all."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from core.sql.connection import Connection
from core.sql.place import DatabasePlace
from core.sql.pool import PostgresPool
from searchsvc.feedback_schema import POSTGRES_STEPS

_ResultT = TypeVar("_ResultT")


class SharedFeedback:
    is_shared = True

    def __init__(self, place: DatabasePlace) -> None:
        self._pool = PostgresPool(place, POSTGRES_STEPS, part="feedback", what="the feedback", durable=True)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._pool.__aexit__(kind, error, trace)

    async def write(self, work: Callable[[Connection], _ResultT]) -> _ResultT:
        return await self._pool.run(work)

    async def read(self, work: Callable[[Connection], _ResultT]) -> _ResultT:
        return await self._pool.run(work)

    def now(self) -> float:
        return self._pool.now()
