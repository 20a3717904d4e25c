"""Upserts of several pictures in one call: a server answers a call, not a point.

While calls are under way the next ones gather, so a quiet store writes at once and a busy one in full calls. What waits is bounded
in bytes: who brings more waits for room. A caller returns when the call that holds its points was acknowledged. Where the server
refuses a call, its pictures are written one by one, so that only the one that is to blame fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from core.errors import InvalidRequest, VectorsUnavailable
from core.ports import Point

_LINGER_S = 0.003
_CALLS_AT_ONCE = 4
_BYTES_WAITING = 32 * 2**20

Write = Callable[[str, Sequence[Point]], Awaitable[None]]


@dataclass(eq=False, slots=True)
class _Waiting:
    points: Sequence[Point]
    size: int
    written: asyncio.Future[None]


@dataclass(slots=True)
class _Queue:
    """Of one collection. `calls` counts those that take from it."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    calls: int = 0


class Gathering:
    """`write` brings points of any number into one collection; `points_per_call` bounds what is given to it, but for one large picture."""

    def __init__(
        self,
        write: Write,
        *,
        points_per_call: Callable[[int], int],
        bytes_waiting: int = _BYTES_WAITING,
        linger_s: float = _LINGER_S,
    ) -> None:
        self._write = write
        self._points_per_call = points_per_call
        self._bytes_waiting = bytes_waiting
        self._linger_s = linger_s
        self._queues: dict[str, _Queue] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._room = asyncio.Condition()
        self.bytes_held = 0

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        """Write the points of one picture. Raises what `write` raises for them; VectorsUnavailable after `close`."""
        if not points:
            return
        waiting = _Waiting(points, sum(map(_size_of, points)), asyncio.get_running_loop().create_future())
        async with self._room:
            await self._room.wait_for(lambda: not self.bytes_held or self.bytes_held + waiting.size <= self._bytes_waiting)
            self.bytes_held += waiting.size
        queue = self._queues.setdefault(collection, _Queue())
        queue.waiting.append(waiting)
        if queue.calls < _CALLS_AT_ONCE:
            queue.calls += 1
            task = asyncio.create_task(self._work(collection, queue))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        await waiting.written

    async def close(self) -> None:
        """What was not acknowledged fails."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        for queue in self._queues.values():
            await self._leave(queue.waiting)
            queue.waiting.clear()

    async def _work(self, collection: str, queue: _Queue) -> None:
        """One call after the other, until nobody waits."""
        try:
            await asyncio.sleep(self._linger_s)
            while batch := self._take(queue):
                try:
                    await self._write_all(collection, batch)
                finally:
                    await self._leave(batch)
        finally:
            queue.calls -= 1

    def _take(self, queue: _Queue) -> list[_Waiting]:
        batch: list[_Waiting] = []
        points = 0
        while queue.waiting:
            first = queue.waiting[0]
            most = self._points_per_call(first.points[0].vector.size)
            if batch and points + len(first.points) > most:
                break
            batch.append(queue.waiting.popleft())
            points += len(first.points)
        return batch

    async def _write_all(self, collection: str, batch: Sequence[_Waiting]) -> None:
        wanted = [waiting for waiting in batch if not waiting.written.done()]  # whose caller was not cancelled
        outcome = await self._outcome(collection, [point for waiting in wanted for point in waiting.points])
        if isinstance(outcome, InvalidRequest) and len(wanted) > 1:
            for waiting in wanted:
                await self._write_all(collection, [waiting])
            return
        for waiting in wanted:
            _resolve(waiting, outcome)

    async def _outcome(self, collection: str, points: Sequence[Point]) -> Exception | None:
        try:
            if points:
                await self._write(collection, points)
        except Exception as error:  # noqa: BLE001 - it is told to those whose points they were
            return error
        return None

    async def _leave(self, batch: Sequence[_Waiting]) -> None:
        for waiting in batch:  # what has no outcome by now was broken off
            _resolve(waiting, VectorsUnavailable("The connection to Qdrant is closed"))
        self.bytes_held -= sum(waiting.size for waiting in batch)
        async with self._room:
            self._room.notify_all()


def _resolve(waiting: _Waiting, outcome: Exception | None) -> None:
    if waiting.written.done():
        return
    if outcome is None:
        waiting.written.set_result(None)
    else:
        waiting.written.set_exception(outcome)


def _size_of(point: Point) -> int:
    """Bytes, roughly: a payload is mostly the text of a mask."""
    mask = point.payload.get("mask")
    return int(point.vector.nbytes) + 512 + (len(mask["counts"]) if isinstance(mask, dict) else 0)
