"""The nodes of a Qdrant cluster, any of which answers for all: which is asked, and what happens when it does not answer.

Every call may be repeated: ids are told by us, so a write that comes twice is written once. An attempt that was given up may still
be carried out by a node that hung, after a later call; the reconcile finds what that revives (`watcher.ranges`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import TypeVar

import structlog
from qdrant_client import AsyncQdrantClient

from core.errors import VectorsUnavailable
from core.vectors.server_connection import KeyRefused, ServerConnection, answered

log = structlog.get_logger()

T = TypeVar("T")
Ask = Callable[[AsyncQdrantClient], Awaitable[T]]

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0
_REST_S = 5.0


class Nodes:
    """`patience_s` is how long a write is tried again; a read ends within `timeout_s`, for somebody waits for it."""

    def __init__(self, nodes: Sequence[ServerConnection], *, timeout_s: float, patience_s: float) -> None:
        self._nodes = list(nodes)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._resting_until = dict.fromkeys(range(len(self._nodes)), 0.0)
        self._turn = 0

    async def close(self) -> None:
        for node in self._nodes:
            await node.close()

    async def now(self, ask: Ask[T]) -> T:
        """The answer of the first node that gives one, each being asked once. Raises VectorsUnavailable, InvalidRequest, Absent."""
        return await self._round(ask, deadline=time.monotonic() + self._timeout_s)

    async def read(self, ask: Ask[T]) -> T:
        """As `now`, and once more after a moment: a node that restarts refuses, and others find out who leads. Raises as `now`."""
        deadline = time.monotonic() + self._timeout_s
        try:
            return await self._round(ask, deadline=deadline)
        except KeyRefused:
            raise
        except VectorsUnavailable:
            pause_s = next(pauses())
            if time.monotonic() + pause_s >= deadline:
                raise
            await asyncio.sleep(pause_s)
            return await self._round(ask, deadline=deadline)

    async def write(self, ask: Ask[T]) -> T:
        """As `now`, again and again with growing pauses until the patience ends. Raises as `now`."""
        began = time.monotonic()
        for attempt, pause_s in enumerate(pauses(), 1):
            try:
                return await self._round(ask, deadline=None)
            except KeyRefused:
                raise
            except VectorsUnavailable as error:
                if time.monotonic() + pause_s - began >= self._patience_s:
                    raise
                log.info("qdrant_write_repeated", attempt=attempt, pause_s=round(pause_s, 2), why=str(error))
                await asyncio.sleep(pause_s)
        raise AssertionError("pauses are endless")

    async def _round(self, ask: Ask[T], *, deadline: float | None) -> T:
        """Each node once, a share of the time that is left for each."""
        order = self._order()
        failure: VectorsUnavailable | None = None
        for asked, number in enumerate(order):
            share_s = self._timeout_s if deadline is None else max(0.0, deadline - time.monotonic()) / (len(order) - asked)
            try:
                async with asyncio.timeout(share_s):
                    answer = await answered(ask(await self._nodes[number].client()))
            except KeyRefused:
                raise
            except (VectorsUnavailable, TimeoutError) as error:
                failure = error if isinstance(error, VectorsUnavailable) else VectorsUnavailable("Qdrant does not answer")
                self._resting_until[number] = time.monotonic() + _REST_S
            else:
                self._resting_until[number] = 0.0
                return answer
        raise failure or VectorsUnavailable("Qdrant does not answer")

    def _order(self) -> list[int]:
        """In turn, so that all work; those that failed a moment ago come last."""
        self._turn = (self._turn + 1) % len(self._nodes)
        numbers = [*range(self._turn, len(self._nodes)), *range(self._turn)]
        now = time.monotonic()
        return sorted(numbers, key=lambda number: self._resting_until[number] > now)


def pauses() -> Iterator[float]:
    """Seconds, doubling up to a bound, each anywhere in its upper half, so that those who failed together don't come back together."""
    for attempt in count():
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt, 10))
        yield random.uniform(longest / 2, longest)  # noqa: S311 - no secret
