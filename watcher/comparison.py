"""Ledger against one collection, a range of image ids at a time: counts first, then the ids of ranges that may differ.

Nothing but the ids of one range is held at a time, however large the collection is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from core import points
from core.points import Kind
from core.ports import ANYTHING, Match, Prefix, VectorStore, Where
from watcher import ranges
from watcher.ledger import Operations
from watcher.views import Expected, Settled

POINTS_PER_RANGE = 4000
_ID_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Compared:
    """A range whose ids were compared. Images that lack points, and points that no indexed image explains."""

    beginning: str
    lacking: list[str]
    unexplained: list[str]


@dataclass(slots=True)
class _Round:
    """One look at all of a collection, from where the last one stopped, until it is there again."""

    began: str
    at: str
    wrapped: bool = False


class Comparison:
    """`points_per_s` bounds how fast ids are read; 0: no bound."""

    def __init__(
        self, ledger: Operations, vectors: VectorStore, *, points_per_s: float = 0.0, points_per_range: int = POINTS_PER_RANGE
    ) -> None:
        self._ledger = ledger
        self._vectors = vectors
        self._points_per_s = points_per_s
        self._points_per_range = points_per_range
        self._rounds: dict[str, _Round] = {}

    def is_under_way(self, collection: str) -> bool:
        """Whether a look at every point of it was begun and not ended."""
        return collection in self._rounds

    async def differing(self, collection: str) -> AsyncGenerator[Compared, None]:
        """Only ranges whose counts differ. What was lost beside as much that came back is not seen so."""
        async with aclosing(self._walk(collection, "", start="", every_point=False)) as walk:
            async for compared in walk:
                yield compared

    async def every_point(self, collection: str, *, until: float) -> AsyncGenerator[Compared, None]:
        """All ranges, in a round that goes on where it was broken off, even by a restart. It is left unfinished at `until` (monotonic)."""
        here = self._rounds.get(collection)
        if here is None:
            at = await self._ledger.run(ranges.compared_to, collection)
            here = self._rounds[collection] = _Round(at, at)
        while True:
            async with aclosing(self._walk(collection, "", start=here.at, every_point=True)) as walk:
                async for compared in walk:
                    if here.wrapped and compared.beginning >= here.began:
                        break
                    yield compared
                    here.at = ranges.end_of(compared.beginning)
                    await self._ledger.run(ranges.note, collection, here.at)
                    if time.monotonic() >= until:
                        return
            if here.wrapped or not here.began:
                break
            here.at, here.wrapped = "", True
        self._rounds.pop(collection)
        await self._ledger.run(ranges.forget, collection)

    async def _walk(self, collection: str, beginning: str, *, start: str, every_point: bool) -> AsyncGenerator[Compared, None]:
        if ranges.end_of(beginning) <= start:
            return
        if not (start and start.startswith(beginning)):  # else it was divided before: to count it again is dear where it is large
            wanted = await self._ledger.run(ranges.settled, beginning)
            many = wanted.images + wanted.segments
            if not (every_point and many > self._points_per_range):
                found = await self._found(collection, beginning)
                if found == wanted and (not every_point or not many):
                    return
                many = max(many, found.images + found.segments)
            if many <= self._points_per_range or len(beginning) == _ID_DIGITS:
                yield await self._compared(collection, beginning)
                await asyncio.sleep(many / self._points_per_s if self._points_per_s else 0.0)
                return
        for digit in ranges.DIGITS:
            async with aclosing(self._walk(collection, beginning + digit, start=start, every_point=every_point)) as walk:
                async for compared in walk:
                    yield compared

    async def _found(self, collection: str, beginning: str) -> Settled:
        within = _within(beginning)
        images = await self._vectors.count(collection, where=Where(must=(*within.must, Match("kind", (Kind.IMAGE.value,)))))
        return Settled(images, await self._vectors.count(collection, where=within) - images)

    async def _compared(self, collection: str, beginning: str) -> Compared:
        """The collection is read first: what is indexed meanwhile is missing in it, and found to be there by the second look."""
        found = {record.id async for record in self._vectors.scroll(collection, where=_within(beginning), with_payload=False)}
        lacking: list[str] = []
        for image in await self._ledger.run(ranges.expected, beginning):
            ids = ids_of(image)
            if not found.issuperset(ids):
                lacking.append(image.image_id)
            found.difference_update(ids)
        return Compared(beginning, lacking, sorted(found))


def ids_of(image: Expected) -> list[str]:
    segments = (points.segment_point_id(image.image_id, n) for n in range(image.segments))
    return [points.image_point_id(image.image_id), *segments]


def _within(beginning: str) -> Where:
    """For all of them without a condition, which costs least."""
    return Where(must=(Prefix("image_id", beginning),)) if beginning else ANYTHING
