"""Copying every point into another home of the vectors, while nothing works with them; and comparing both."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import numpy as np

from core.errors import ImageSearchError
from core.ports import CollectionSize, Point, Record, VectorStore
from core.schemas import Space
from core.settings import FolderSettings, parts
from core.vectors.edge import EdgeStore
from standalone.moves.course import Course, stamp_of
from watcher.ledger import Ledger, ledger_of

EDGE = "edge"
_PAGE = 1000
_AT_ONCE = 4
_NOTE_EVERY_S = 2.0
_SAMPLES = 64
_SAMPLE_POINTS = 8
_VECTOR_ERROR = 1e-5
_NO_INDEX_MEANWHILE = 2**62

Told = Callable[[str, int, int], None]
"""A collection, how many points of it were copied by this run, and how many it has."""


class CannotMove(ImageSearchError):
    """Nothing was moved; the message says what stands in the way."""


class MoveDiffers(ImageSearchError):
    """The copy is not as the original is."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Points by collection, and how many of them were compared, vector and payload, in both homes."""

    points: dict[str, int]
    compared: int


async def move(settings: FolderSettings, to: str, *, replace: bool = False, told: Told = lambda *_: None) -> Moved:
    """Copy all points of the home that the settings name into the home `to`: `edge`, or the URL of a server. The original stays.

    What a kill breaks off is gone on with by the next call. With `replace` collections that are in the target already are removed.
    Raises CannotMove, MoveDiffers, LedgerInUse, VectorsUnavailable, OSError.
    """
    home = settings.qdrant_url or EDGE
    if _name_of(home) == _name_of(to):
        raise CannotMove(f"the vectors are in {_name_of(to)} already: settings of the home that they leave, --to the new one")
    if home == EDGE and not (settings.data_dir / "vectors").is_dir():
        raise CannotMove(f"there are no vectors in {settings.data_dir}: is DATA_DIR what it is when the product runs?")
    async with (
        _alone(settings) as ledger,
        _opened(settings, home) as source,
        _opened(settings, to) as target,
    ):
        course = Course(source=_name_of(home), target=_name_of(to), stamp=await ledger.run(stamp_of))
        return await _Move(settings, source, target, course, told).run(replace=replace)


@asynccontextmanager
async def _alone(settings: FolderSettings) -> AsyncIterator[Ledger]:
    """Raises LedgerInUse, CannotMove."""
    async with ledger_of(settings) as ledger, ledger.watch() as watch:
        if watch is None:
            raise CannotMove("a watcher works with the ledger: stop the product first, its workers too")
        yield ledger


def _opened(settings: FolderSettings, home: str) -> AbstractAsyncContextManager[VectorStore]:
    if home == EDGE:
        # an index is built by the product when it next starts, once, and not again and again as the points come
        return EdgeStore(settings.data_dir / "vectors", storage=settings.vector_storage, index_from=_NO_INDEX_MEANWHILE)
    from core.vectors.server import ServerStore  # noqa: PLC0415 - 60 MB for those alone who have a server

    return ServerStore.of(settings, home)


def _name_of(home: str) -> str:
    """Without what may be secret in a URL."""
    places = [urlsplit(one) for one in parts(home)]
    return home if home == EDGE else ",".join(f"{place.scheme}://{place.hostname}:{place.port}" for place in places)


class _Move:
    def __init__(self, settings: FolderSettings, source: VectorStore, target: VectorStore, course: Course, told: Told) -> None:
        self._folder = settings.data_dir
        self._source = source
        self._target = target
        self._course = course
        self._told = told

    async def run(self, *, replace: bool) -> Moved:
        sizes = await self._source.sizes()
        if not sizes:
            raise CannotMove("there are no collections to be moved")
        fresh = self._course
        broken_off = Course.of(self._folder, source=fresh.source, target=fresh.target, stamp=fresh.stamp)
        if broken_off is None:
            await self._check_apart()
            await self._make_room(sizes, replace=replace)
        self._course = broken_off or fresh
        for size in sizes:
            await self._copy(size)
        await self._target.flush()
        moved = await self._verified(sizes)
        Course.end(self._folder)
        return moved

    async def _check_apart(self) -> None:
        """A server has several names, a cluster several nodes: room would be made in what is to stay. Raises CannotMove."""
        probe = f"move-probe-{uuid4().hex}"
        await self._target.ensure(Space(collection=probe, model_name="", dim=1, text=False))
        try:
            if probe in await self._source.collections():
                raise CannotMove(f"{self._course.source} and {self._course.target} are one server, or nodes of one cluster")
        finally:
            await self._target.drop(probe)

    async def _make_room(self, sizes: Sequence[CollectionSize], *, replace: bool) -> None:
        """Raises CannotMove where there are points already that no move of before has brought."""
        ours = Course.owned(self._folder, self._course.target)
        present = set(await self._target.collections()) & {size.collection for size in sizes}
        for collection in sorted(present):
            if await self._target.count(collection) and collection not in ours and not replace:
                raise CannotMove(
                    f"{self._course.target} holds points of {collection} already; --replace (REPLACE=1) removes them"
                )
        for collection in present:
            await self._target.drop(collection)

    async def _copy(self, size: CollectionSize) -> None:
        collection, begun = size.collection, self._course.begun
        if collection not in begun:
            begun[collection] = str(UUID(int=0))
            self._course.note(self._folder)  # before anything is there, so that it is known to be ours
        await self._target.ensure(Space(collection=collection, model_name="", dim=size.dim, text=False))
        if begun[collection] is None:
            return
        copied, noted_at = 0, time.monotonic()
        async for page in _pages(self._source, collection, first=begun[collection]):
            await _write(self._target, collection, page)
            copied += len(page)
            self._told(collection, copied, size.points)
            if time.monotonic() - noted_at >= _NOTE_EVERY_S:
                await self._note(collection, page[-1].id)
                noted_at = time.monotonic()
        await self._note(collection, None)

    async def _note(self, collection: str, reached: str | None) -> None:
        """What is noted survives a power cut in the target."""
        await self._target.flush()
        self._course.begun[collection] = reached
        self._course.note(self._folder)

    async def _verified(self, sizes: Sequence[CollectionSize]) -> Moved:
        """Raises MoveDiffers; what differs is copied anew by the next run."""
        points, compared = {}, 0
        for size in sizes:
            here, there = await self._source.count(size.collection), await self._target.count(size.collection)
            same = await self._same_samples(size.collection) if here == there else None
            if same is None:
                del self._course.begun[size.collection]
                await self._target.drop(size.collection)
                self._course.note(self._folder)
                raise MoveDiffers(f"{size.collection} has {here} points here and {there} there, or they differ; move once more")
            points[size.collection] = there
            compared += same
        return Moved(points, compared)

    async def _same_samples(self, collection: str) -> int | None:
        """How many points were the same in both homes, taken from places all over the ids; None where one was not."""
        compared, chance = 0, Random(collection)  # noqa: S311 - no secret
        for _ in range(_SAMPLES):
            first = str(UUID(int=chance.getrandbits(128)))
            here = await _some(self._source, collection, first)
            there = {record.id: record for record in await _retrieved(self._target, collection, here)}
            if not all(record.id in there and _same(record, there[record.id]) for record in here):
                return None
            compared += len(here)
        return compared


async def _pages(store: VectorStore, collection: str, *, first: str | None) -> AsyncIterator[list[Record]]:
    page: list[Record] = []
    async for record in store.scroll(collection, first=first, with_vectors=True, batch=_PAGE):
        page.append(record)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


async def _write(store: VectorStore, collection: str, page: Sequence[Record]) -> None:
    """A few calls at once, which a server answers side by side."""
    written = [Point(record.id, record.vector, record.payload) for record in page if record.vector is not None]
    share = -(-len(written) // _AT_ONCE)
    await asyncio.gather(*(store.upsert(collection, written[at : at + share]) for at in range(0, len(written), share)))


async def _some(store: VectorStore, collection: str, first: str) -> list[Record]:
    found: list[Record] = []
    async for record in store.scroll(collection, first=first, with_vectors=True, batch=_SAMPLE_POINTS):
        found.append(record)
        if len(found) == _SAMPLE_POINTS:
            break
    return found


async def _retrieved(store: VectorStore, collection: str, like: Sequence[Record]) -> list[Record]:
    return await store.retrieve(collection, [record.id for record in like], with_vectors=True)


def _same(one: Record, other: Record) -> bool:
    if one.vector is None or other.vector is None or not _alike(one.payload, other.payload):
        return False
    return bool(np.allclose(one.vector, other.vector, atol=_VECTOR_ERROR))


def _alike(one: object, other: object) -> bool:
    """Equal but for the last digit of a number: Qdrant Edge 0.9 reads numbers from its files with an error of one unit there."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-12)
    return one == other
