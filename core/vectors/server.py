"""Vectors on a Qdrant server or cluster, behind `core.ports.VectorStore`.

Our collections carry a prefix on the server, so that others may live there too and are never touched or listed.
Nothing is asked of the server on entering: it may come up after us, and go and come back while we run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import structlog
from qdrant_client import AsyncQdrantClient, models

from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES
from core.ports import ANYTHING, CollectionSize, FacetCount, Hit, Payload, Point, Record, Where
from core.schemas import Space, Vector
from core.settings import FolderSettings, parts
from core.vectors.checks import batches_of, checked_facet, checked_vector, narrowing_where, points_per_call
from core.vectors.gathering import Gathering
from core.vectors.server_connection import Absent, ServerConnection
from core.vectors.server_filters import server_filter
from core.vectors.server_layout import (
    differences,
    index_params,
    read_consistency,
    search_params,
    serves,
    vector_params,
    vectors_of,
)
from core.vectors.server_nodes import Ask, Nodes
from core.vectors.storage import AS_THE_SERVER_HAS_IT, PLAIN, ClusterLayout, ReadConsistency, VectorStorage

log = structlog.get_logger()

T = TypeVar("T")

_PAGE = 1000


class ServerStore:
    """One collection a space on the server at `url`, or on the nodes of a cluster if it names several, separated by commas; gRPC where
    a node offers it, else REST.

    `client` replaces the connection that would be made from the other parameters, and is closed with the store.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        prefer_grpc: bool = True,
        timeout_s: float = 10.0,
        prefix: str = "imagesearch-",
        storage: VectorStorage = PLAIN,
        layout: ClusterLayout = AS_THE_SERVER_HAS_IT,
        consistency: ReadConsistency | None = None,
        write_patience_s: float = 0.0,
        client: AsyncQdrantClient | None = None,
    ) -> None:
        nodes = [
            ServerConnection(one, api_key=api_key, prefer_grpc=prefer_grpc, timeout_s=timeout_s, client=client)
            for one in parts(url)
        ]
        self._nodes = Nodes(nodes, timeout_s=timeout_s, patience_s=write_patience_s)
        self._gathering = Gathering(self._write_points, points_per_call=points_per_call)
        self._prefix = prefix
        self._storage = storage
        self._layout = layout
        self._consistency = read_consistency(consistency)
        self._dims: dict[str, int] = {}
        """Collections known to exist, under our name: saves a round trip a call, and is forgotten when the server denies one."""
        self._told: set[str] = set()
        """Collections of which was said that they differ from the settings."""

    @classmethod
    def of(cls, settings: FolderSettings, url: str) -> Self:
        return cls(
            url,
            api_key=settings.qdrant_api_key,
            prefer_grpc=settings.qdrant_prefer_grpc,
            timeout_s=settings.qdrant_timeout_s,
            storage=settings.vector_storage,
            layout=settings.cluster_layout,
            consistency=settings.qdrant_read_consistency,
            write_patience_s=settings.qdrant_write_patience_s,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._gathering.close()
        await self._nodes.close()

    def name_of(self, collection: str) -> str:
        """What the server calls it."""
        return self._prefix + collection

    async def ping(self) -> None:
        await self._nodes.now(lambda client: client.get_collections())

    async def ensure(self, space: Space) -> None:
        name = self._prefix + space.collection
        if not await self._nodes.read(lambda client: client.collection_exists(name)):
            await self._create(name, space.dim)
        info = await self._nodes.read(lambda client: client.get_collection(name))
        dim = vectors_of(info).size
        if dim != space.dim:
            raise InvalidRequest(f"Collection {space.collection} holds vectors of {dim} numbers, not {space.dim}")
        for key, index_type in PAYLOAD_INDEXES.items():
            if not serves(info.payload_schema.get(key), index_type):
                await self._add_index(name, key)
        self._dims[space.collection] = space.dim
        self._tell_differences(space.collection, info)

    async def _create(self, name: str, dim: int) -> None:
        """Create the collection; another process may do the same at the same time, and one of the two is refused."""

        def create(client: AsyncQdrantClient) -> Awaitable[bool]:
            return client.create_collection(
                name,
                vectors_config=vector_params(dim, self._storage),
                shard_number=self._layout.shards,
                replication_factor=self._layout.replicas,
                write_consistency_factor=self._layout.write_consistency,
                on_disk_payload=self._layout.payload_on_disk,
            )

        try:
            await self._nodes.write(create)
        except (InvalidRequest, ValueError):
            if not await self._nodes.write(lambda client: client.collection_exists(name)):
                raise
        else:
            log.info("collection_created", collection=name, dim=dim)

    async def _add_index(self, name: str, key: str) -> None:
        await self._nodes.write(lambda client: client.create_payload_index(name, key, field_schema=index_params(key), wait=True))

    def _tell_differences(self, collection: str, info: models.CollectionInfo) -> None:
        """Once: what is set holds for collections that are made from now on, and whoever set it should know."""
        differing = [*differences(info, self._layout, self._storage)]
        if differing and collection not in self._told:
            log.warning("collection_differs_from_settings", collection=collection, differences=differing)
        self._told.add(collection)

    async def collections(self) -> list[str]:
        names = [found.name for found in (await self._nodes.read(lambda client: client.get_collections())).collections]
        return sorted(name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        dim = await self._dim_of(collection)
        if dim is None:
            raise VectorsUnavailable(f"Collection {collection} does not exist yet")
        for point in points:
            checked_vector(point.vector, dim)
        await self._gathering.put(collection, points)

    async def _write_points(self, collection: str, points: Sequence[Point]) -> None:
        """Acknowledged, one portion after the other."""
        stored = [models.PointStruct(id=point.id, vector=point.vector.tolist(), payload=dict(point.payload)) for point in points]
        for batch in batches_of(stored, points[0].vector.size):
            wish = list(batch)
            if await self._write(
                collection,
                lambda client, wish=wish: client.upsert(self._prefix + collection, points=wish, wait=True),  # type: ignore[misc]
            ):
                continue
            raise VectorsUnavailable(f"Collection {collection} does not exist any more")

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
        selection = server_filter(where)
        dim = await self._dim_of(collection)
        if dim is None or limit < 1:
            return []
        wanted = checked_vector(vector, dim)
        answer = await self._read(
            collection,
            lambda client: client.query_points(
                self._prefix + collection,
                query=wanted,
                query_filter=selection,
                limit=limit,
                offset=offset,
                score_threshold=min_score,
                with_payload=True,
                with_vectors=with_vectors,
                search_params=search_params(self._storage, where),
                consistency=self._consistency,
            ),
        )
        points = [] if answer is None else answer.points
        return [Hit(str(point.id), point.score, point.payload or {}, _vector(point.vector)) for point in points]

    async def retrieve(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        dim = await self._dim_of(collection)
        wanted, records = list(dict.fromkeys(ids)) if dim is not None else [], list[Record]()
        for start in range(0, len(wanted), _PAGE):
            records += await self._retrieved(collection, wanted[start : start + _PAGE], with_vectors)
        return records

    async def _retrieved(self, collection: str, ids: list[str], with_vectors: bool) -> list[Record]:
        found = await self._read(
            collection,
            lambda client: client.retrieve(
                self._prefix + collection,
                ids=ids,
                with_payload=True,
                with_vectors=with_vectors,
                consistency=self._consistency,
            ),
        )
        return [_record(point) for point in found or []]

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
        selection = server_filter(where)
        dim = await self._dim_of(collection)
        start: Any = first
        while dim is not None:
            page, start = await self._read(
                collection,
                lambda client, start=start: client.scroll(  # type: ignore[misc]
                    self._prefix + collection,
                    scroll_filter=selection,
                    limit=min(batch, _PAGE),
                    offset=start,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                    consistency=self._consistency,
                ),
            ) or ([], None)
            for point in page:
                yield _record(point)
            if start is None:
                return

    async def set_payload(self, collection: str, where: Where, payload: Payload) -> None:
        selection = server_filter(where)
        if await self._dim_of(collection) is not None:
            fields, name = dict(payload), self._prefix + collection
            await self._write(collection, lambda client: client.set_payload(name, payload=fields, points=selection, wait=True))

    async def delete(self, collection: str, where: Where) -> None:
        selection = models.FilterSelector(filter=server_filter(narrowing_where(where)))
        if await self._dim_of(collection) is not None:
            name = self._prefix + collection
            await self._write(collection, lambda client: client.delete(name, points_selector=selection, wait=True))

    async def count(self, collection: str, *, where: Where = ANYTHING) -> int:
        selection = server_filter(where)
        if await self._dim_of(collection) is None:
            return 0
        name = self._prefix + collection
        answer = await self._read(collection, lambda client: client.count(name, count_filter=selection, exact=True))
        return 0 if answer is None else answer.count

    async def facet(self, collection: str, key: str, *, where: Where = ANYTHING, limit: int = 100) -> list[FacetCount]:
        selection = server_filter(where)
        if await self._dim_of(collection) is None or limit < 1:
            return []
        name, field = self._prefix + collection, checked_facet(key)
        answer = await self._read(
            collection,
            lambda client: client.facet(
                name, field, facet_filter=selection, limit=limit, exact=True, consistency=self._consistency
            ),
        )
        return [] if answer is None else [FacetCount(str(hit.value), hit.count) for hit in answer.hits]

    async def sizes(self) -> list[CollectionSize]:
        names = await self.collections()
        found = await asyncio.gather(*(self._described(name) for name in names))
        return [
            CollectionSize(name, info.points_count or 0, None, vectors.size)
            for name, info in zip(names, found, strict=True)
            if info and isinstance(vectors := info.config.params.vectors, models.VectorParams)
        ]

    async def _described(self, collection: str) -> models.CollectionInfo | None:
        return await self._read(collection, lambda client: client.get_collection(self._prefix + collection))

    async def drop(self, collection: str) -> None:
        with suppress(Absent):
            await self._nodes.write(lambda client: client.delete_collection(self._prefix + collection))
        self._dims.pop(collection, None)

    async def flush(self) -> None:
        """The server answers a write once it is in its journal, and brings that onto the disk by its own clock."""
        await self.ping()

    async def _dim_of(self, collection: str) -> int | None:
        """The dimension of a collection that exists."""
        if collection not in self._dims:
            name = self._prefix + collection
            if not await self._nodes.read(lambda client: client.collection_exists(name)):
                return None
            info = await self._described(collection)
            if info is None:
                return None
            self._dims[collection] = vectors_of(info).size
        return self._dims[collection]

    async def _read(self, collection: str, ask: Ask[T]) -> T | None:
        """The answer, or None if the collection is gone since it was last seen."""
        try:
            return await self._nodes.read(ask)
        except Absent:
            self._dims.pop(collection, None)
            return None

    async def _write(self, collection: str, ask: Ask[models.UpdateResult]) -> bool:
        """Whether there was a collection to write to. What a server merely took note of is asked for again: it may not be on every replica."""

        async def carried_out(client: AsyncQdrantClient) -> None:
            if (await ask(client)).status is not models.UpdateStatus.COMPLETED:
                raise VectorsUnavailable("Qdrant does not say that the write was carried out")

        try:
            await self._nodes.write(carried_out)
        except Absent:
            self._dims.pop(collection, None)
            return False
        return True


def _record(point: models.Record) -> Record:
    return Record(str(point.id), point.payload or {}, _vector(point.vector))


def _vector(vector: object) -> Vector | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)
