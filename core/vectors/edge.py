"""Vectors in the process: Qdrant Edge behind `core.ports.VectorStore`.

Every call of the engine holds the GIL until it returns, so each is kept to milliseconds: writes and pages go in portions, and
`optimize()` (16 s at 40,000 points) is left to a process of its own (`core.vectors.edge_growth`). Until a collection has an index its
searches are exact: 1.5 ms at 20,000 points of 512.
The engine's `flush()` holds the GIL for 0.2 to 0.5 s, so it runs only when a shard's journal has grown long, and at the end; in
between `flush` brings the journal onto the disk by plain `fsync`, from which a start after a power cut rebuilds the rest.
What was just asked is answered without the engine for as long as its collection stays as it was: nobody else can write to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import numpy as np
import qdrant_edge as edge
import structlog
from cachetools import LRUCache

from core.errors import VectorsUnavailable
from core.ports import ANYTHING, CollectionSize, FacetCount, Hit, Payload, Point, Record, Where
from core.schemas import Space, Vector
from core.vectors.checks import batches_of, checked_facet, checked_vector, narrowing_where
from core.vectors.edge_config import search_params
from core.vectors.edge_filters import edge_filter
from core.vectors.edge_gate import Held
from core.vectors.edge_growth import IndexGrowth
from core.vectors.edge_payload_indexes import add_index, missing_indexes
from core.vectors.edge_shard import Dropped, Shard
from core.vectors.edge_shards import EdgeShards, open_files, remove_trees, sync_files
from core.vectors.storage import PLAIN, VectorStorage

log = structlog.get_logger()

T = TypeVar("T")

_FACET_VALUES = 10_000
_PAGE = 4096
_PAGE_WITH_PAYLOAD = 256  # 2 ms with a mask in each payload
_GATE_POLL_S = 0.02
_FILES_AT_ONCE = 32  # a shard has hundreds; descriptors may be few
_KEPT_HITS = 4096  # of all answers that are kept; 8 MiB with a mask in each payload

_Asked = tuple[str, bytes, Where, int, int, float | None]
_Answer = tuple[object, tuple[Hit, ...]]
"""Hits, with the `Shard.state` that they were found in."""


class EdgeStore:
    """One Qdrant Edge shard a collection, in `folder`, which only one process can open: the second gets VectorsUnavailable."""

    def __init__(
        self,
        folder: Path,
        *,
        storage: VectorStorage = PLAIN,
        lock_wait_s: float = 2.0,
        journal_limit_bytes: int = 64 * 2**20,
        index_from: int = 50_000,
    ) -> None:
        """`index_from` is how many points without an index are worth building one."""
        self._shards = EdgeShards(folder, storage)
        self._growth = IndexGrowth(self._shards, self._run, self._run_gated, index_from=index_from, storage=storage)
        self._storage = storage
        self._answers: LRUCache[_Asked, _Answer] = LRUCache(_KEPT_HITS, getsizeof=lambda answer: 1 + len(answer[1]))
        self._lock_wait_s = lock_wait_s
        self._journal_limit_bytes = journal_limit_bytes
        self._engine_thread: ThreadPoolExecutor | None = None
        self._sync_thread: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        self._engine_thread = ThreadPoolExecutor(1, thread_name_prefix="edge")
        self._sync_thread = ThreadPoolExecutor(1, thread_name_prefix="edge-sync")
        try:
            await self._run(lambda: self._shards.open(lock_wait_s=self._lock_wait_s))
        except BaseException:
            self._shut_down()
            raise
        for shard in self._shards.all():
            self._growth.consider(shard)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._growth.close()
            await self._run(self._shards.close)
        finally:
            self._shut_down()

    def _shut_down(self) -> None:
        for executor in (self._engine_thread, self._sync_thread):
            if executor is not None:
                executor.shutdown()
        self._engine_thread = self._sync_thread = None

    async def _run(self, call: Callable[[], T]) -> T:
        """One call of the engine, on its thread."""
        try:
            return await _on(self._engine_thread, call)
        except Dropped:
            raise
        except VectorsUnavailable:
            self._shards.doubt()
            raise

    async def _ask(self, shard: Shard, call: Callable[[], T]) -> T:
        """One call of the shard's engine. Raises Dropped where the collection went while the call waited for its turn."""

        def asked() -> T:
            shard.check_kept()
            return call()

        return await self._run(asked)

    async def _write(self, shard: Shard, call: Callable[[], T]) -> T:
        """One call that changes the shard's files, as soon as nobody copies them."""
        while True:
            await shard.until_writable()
            with suppress(Held):
                return await self._ask(shard, lambda: self._shards.through_gate(call))
            await asyncio.sleep(_GATE_POLL_S)

    async def _run_gated(self, call: Callable[[], T]) -> T:
        """A change that keeps others from writing, and waits for nothing but the gate."""
        while True:
            with suppress(Held):
                return await self._run(lambda: self._shards.through_gate(call))
            await asyncio.sleep(_GATE_POLL_S)

    async def ping(self) -> None:
        await self._run(lambda: [shard.engine.info() for shard in self._shards.all()])

    async def ensure(self, space: Space) -> None:
        shard = await self._run(lambda: self._shards.ensure(space.collection, space.dim))
        for key in await self._ask(shard, lambda: missing_indexes(shard.engine)):
            await self._write(shard, lambda key=key: add_index(shard.engine, key))  # type: ignore[misc]

    async def collections(self) -> list[str]:
        return await self._run(self._shards.names)

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        shard = self._shards.get(collection)
        if shard is None:
            raise VectorsUnavailable(f"Collection {collection} does not exist yet")
        for point in points:
            checked_vector(point.vector, shard.dim)
        for batch in batches_of(points, shard.dim):
            await self._write(shard, partial(_upsert, shard, batch))
        self._growth.consider(shard)

    async def query(
        self,
        collection: str,
        vector: Vector,
        *,
        where: Where = ANYTHING,
        limit: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[Hit]:
        shard = self._shards.get(collection)
        if shard is None or limit < 1:
            return []
        asked: _Asked = (collection, vector.tobytes(), where, limit, offset, min_score)
        state, kept = self._answers.get(asked, (None, ()))
        if state is shard.state and not with_vectors:
            return list(kept)
        request = edge.QueryRequest(
            limit=limit,
            offset=offset,
            query=edge.Query.Nearest(checked_vector(vector, shard.dim)),
            filter=edge_filter(where),
            score_threshold=min_score,
            with_payload=True,
            with_vector=with_vectors,
            params=search_params(self._storage, where),
        )
        state, found = await self._ask(shard, lambda: (shard.state, shard.engine.query(request)))
        hits = [Hit(str(point.id), point.score, point.payload or {}, _vector(point.vector)) for point in found]
        if not with_vectors and len(hits) < _KEPT_HITS:
            self._answers[asked] = state, tuple(hits)
        return hits

    async def retrieve(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        shard = self._shards.get(collection)
        if shard is None:
            return []
        wanted, records = list(dict.fromkeys(ids)), list[Record]()
        for start in range(0, len(wanted), _PAGE_WITH_PAYLOAD):
            some: list[int | UUID | str] = [*wanted[start : start + _PAGE_WITH_PAYLOAD]]
            found = await self._ask(shard, lambda some=some: shard.engine.retrieve(some, True, with_vectors))  # type: ignore[misc]
            records += [_record(point) for point in found]
        return records

    async def scroll(
        self,
        collection: str,
        *,
        where: Where = ANYTHING,
        with_payload: bool = True,
        with_vectors: bool = False,
        first: str | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[Record]:
        selection = edge_filter(where)
        shard = self._shards.get(collection)
        limit = min(batch, _PAGE_WITH_PAYLOAD if with_payload or with_vectors else _PAGE)
        start: int | UUID | str | None = first
        while shard is not None:
            request = edge.ScrollRequest(
                offset=start, limit=limit, filter=selection, with_payload=with_payload, with_vector=with_vectors
            )
            page, start = await self._ask(shard, lambda request=request: shard.engine.scroll(request))  # type: ignore[misc]
            for point in page:
                yield _record(point)
            if start is None:
                return

    async def set_payload(self, collection: str, where: Where, payload: Payload) -> None:
        selection = edge_filter(where)
        await self._update(collection, edge.UpdateOperation.set_payload_by_filter(selection, dict(payload)), selection)

    async def delete(self, collection: str, where: Where) -> None:
        selection = edge_filter(narrowing_where(where))
        await self._update(collection, edge.UpdateOperation.delete_points_by_filter(selection), selection)

    async def _update(self, collection: str, operation: edge.UpdateOperation, selection: edge.Filter) -> None:
        shard = self._shards.get(collection)
        if shard is not None:
            await self._write(shard, lambda: shard.write(operation, where=selection))

    async def count(self, collection: str, *, where: Where = ANYTHING) -> int:
        request = edge.CountRequest(exact=True, filter=edge_filter(where))
        shard = self._shards.get(collection)
        return 0 if shard is None else await self._ask(shard, lambda: shard.engine.count(request))

    async def facet(self, collection: str, key: str, *, where: Where = ANYTHING, limit: int = 100) -> list[FacetCount]:
        """Counts as the engine calls them approximate: of each of its segments it takes the most frequent values, so many are asked for.

        2 ms for the labels of 10,000 images, where the exact ones take 84.
        """
        request = edge.FacetRequest(checked_facet(key), limit=max(limit, _FACET_VALUES), exact=False, filter=edge_filter(where))
        shard = self._shards.get(collection)
        found = [] if shard is None or limit < 1 else (await self._ask(shard, lambda: shard.engine.facet(request))).hits
        return [FacetCount(str(hit.value), hit.count) for hit in found[:limit]]

    async def sizes(self) -> list[CollectionSize]:
        counted = await self._run(lambda: [(shard, shard.engine.info().points_count) for shard in self._shards.all()])
        shards, points = zip(*sorted(counted, key=lambda one: one[0].collection), strict=True) if counted else ((), ())
        disk_bytes = await _on(self._sync_thread, lambda: [shard.disk_bytes() for shard in shards])
        return [
            CollectionSize(shard.collection, count, occupied, shard.dim)
            for shard, count, occupied in zip(shards, points, disk_bytes, strict=True)
        ]

    async def drop(self, collection: str) -> None:
        shard = self._shards.get(collection)
        if shard is not None:
            await self._growth.abandon(shard)
            with suppress(Dropped):
                removed = await self._write(shard, lambda: self._shards.drop(collection))
                await asyncio.to_thread(remove_trees, removed)

    async def flush(self) -> None:
        for shard in await self._run(self._shards.all):
            with suppress(Dropped):
                await self._flush(shard)

    async def _flush(self, shard: Shard) -> None:
        await self._sync(shard, shard.journal_files)
        if await self._ask(shard, shard.journal_bytes) > self._journal_limit_bytes:
            stored = await self._ask(shard, shard.stored_files)
            for start in range(0, len(stored), _FILES_AT_ONCE):  # leaves less to write to the flush, which stops every thread
                await self._sync(shard, lambda some=stored[start : start + _FILES_AT_ONCE]: some)  # type: ignore[misc]
            await self._write(shard, lambda: shard.engine.flush())  # noqa: PLW0108 - of the engine that it has by then
            log.info("journal_trimmed", collection=shard.collection)

    async def settled(self) -> None:
        """Return when no index is being built; for whoever measures, since nothing else needs to wait for one."""
        await self._growth.settled()

    async def _sync(self, shard: Shard, paths: Callable[[], list[Path]]) -> None:
        """Open the files between two updates, on the engine's thread; wait for the disk on another."""
        descriptors = await self._ask(shard, lambda: open_files(paths()))
        await _on(self._sync_thread, lambda: sync_files(descriptors))


async def _on(executor: ThreadPoolExecutor | None, call: Callable[[], T]) -> T:
    """Run a blocking call on its thread. Raises VectorsUnavailable when the store is closed or the engine fails."""
    if executor is None:
        raise VectorsUnavailable("The vectors are closed")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, call)
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException" and not isinstance(error, OSError):
            raise  # the engine raises bare Exceptions, and a panic of its own; everything else is ours
        log.exception("engine_failed")
        raise VectorsUnavailable("The vector engine failed; the log says why") from error


def _upsert(shard: Shard, points: Sequence[Point]) -> None:
    stored = [edge.Point(point.id, point.vector.tolist(), dict(point.payload)) for point in points]
    shard.write(edge.UpdateOperation.upsert_points(stored), ids=[point.id for point in points])


def _record(point: edge.Record) -> Record:
    return Record(str(point.id), point.payload or {}, _vector(point.vector))


def _vector(vector: object) -> Vector | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)
