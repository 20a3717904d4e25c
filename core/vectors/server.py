"""Vectors on a Qdrant server or cluster, behind `core.ports.VectorStore`.

Our collections carry a prefix on the server, so that others may live there too and are never touched or listed.
Nothing is asked of the server on entering: it may come up after us, and go and come back while we run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import structlog
from qdrant_client import AsyncQdrantClient, models

from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES, IndexType
from core.ports import ANYTHING, CollectionSize, FacetCount, Hit, Payload, Point, Record, Where
from core.schemas import Space, Vector
from core.settings import FolderSettings
from core.vectors.checks import batches_of, checked_facet, checked_vector, narrowing_where
from core.vectors.server_connection import Absent, ServerConnection, answered
from core.vectors.server_filters import server_filter
from core.vectors.storage import PLAIN, VectorStorage

log = structlog.get_logger()

T = TypeVar("T")

_PAGE = 1000
_SCHEMA: dict[IndexType, models.PayloadSchemaType | models.KeywordIndexParams] = {
    IndexType.KEYWORD: models.PayloadSchemaType.KEYWORD,
    IndexType.SUBSTRING: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True),
    IndexType.INTEGER: models.PayloadSchemaType.INTEGER,
    IndexType.FLOAT: models.PayloadSchemaType.FLOAT,
}


class ServerStore:
    """One collection a space on the server at `url`; gRPC where the server offers it, else REST.

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
        client: AsyncQdrantClient | None = None,
    ) -> None:
        self._connection = ServerConnection(url, api_key=api_key, prefer_grpc=prefer_grpc, timeout_s=timeout_s, client=client)
        self._prefix = prefix
        self._storage = storage
        self._dims: dict[str, int] = {}
        """Collections known to exist, under our name: saves a round trip a call, and is forgotten when the server denies one."""

    @classmethod
    def of(cls, settings: FolderSettings, url: str) -> Self:
        return cls(
            url,
            api_key=settings.qdrant_api_key,
            prefer_grpc=settings.qdrant_prefer_grpc,
            timeout_s=settings.qdrant_timeout_s,
            storage=settings.vector_storage,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._connection.close()

    def name_of(self, collection: str) -> str:
        """What the server calls it."""
        return self._prefix + collection

    async def ping(self) -> None:
        client = await self._connection.client()
        await answered(client.get_collections())

    async def ensure(self, space: Space) -> None:
        client, name = await self._connection.client(), self._prefix + space.collection
        if not await answered(client.collection_exists(name)):
            await self._create(client, name, space.dim)
        info = await answered(client.get_collection(name))
        dim = _dim(info)
        if dim != space.dim:
            raise InvalidRequest(f"Collection {space.collection} holds vectors of {dim} numbers, not {space.dim}")
        for key, index_type in PAYLOAD_INDEXES.items():
            if key not in info.payload_schema:
                await answered(client.create_payload_index(name, key, field_schema=_SCHEMA[index_type], wait=True))
        self._dims[space.collection] = space.dim

    async def _create(self, client: AsyncQdrantClient, name: str, dim: int) -> None:
        """Create the collection; another process may do the same at the same time, and one of the two is refused."""
        vectors = models.VectorParams(
            size=dim,
            distance=models.Distance.COSINE,
            on_disk=self._storage.on_disk or None,
            quantization_config=_quantization(self._storage),
        )
        try:
            await answered(client.create_collection(name, vectors_config=vectors, on_disk_payload=True))
        except (InvalidRequest, ValueError):
            if not await answered(client.collection_exists(name)):
                raise
        else:
            log.info("collection_created", collection=name, dim=dim)

    async def collections(self) -> list[str]:
        client = await self._connection.client()
        names = [found.name for found in (await answered(client.get_collections())).collections]
        return sorted(name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        client, dim = await self._connection.client(), await self._dim_of(collection)
        if dim is None:
            raise VectorsUnavailable(f"Collection {collection} does not exist yet")
        stored = [
            models.PointStruct(id=point.id, vector=checked_vector(point.vector, dim), payload=dict(point.payload))
            for point in points
        ]
        for batch in batches_of(stored, dim):
            writing = client.upsert(self._prefix + collection, points=list(batch), wait=True)
            if await self._present(collection, writing) is None:
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
        client, dim = await self._connection.client(), await self._dim_of(collection)
        if dim is None or limit < 1:
            return []
        asking = client.query_points(
            self._prefix + collection,
            query=checked_vector(vector, dim),
            query_filter=selection,
            limit=limit,
            offset=offset,
            score_threshold=min_score,
            with_payload=True,
            with_vectors=with_vectors,
            search_params=_search_params(self._storage),
        )
        answer = await self._present(collection, asking)
        points = [] if answer is None else answer.points
        return [Hit(str(point.id), point.score, point.payload or {}, _vector(point.vector)) for point in points]

    async def retrieve(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        client, dim = await self._connection.client(), await self._dim_of(collection)
        wanted, records = list(dict.fromkeys(ids)) if dim is not None else [], list[Record]()
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            asking = client.retrieve(self._prefix + collection, ids=some, with_payload=True, with_vectors=with_vectors)
            records += [_record(point) for point in await self._present(collection, asking) or []]
        return records

    async def scroll(
        self, collection: str, *, where: Where = ANYTHING, with_payload: bool = True, batch: int = 1000
    ) -> AsyncIterator[Record]:
        selection = server_filter(where)
        client, dim = await self._connection.client(), await self._dim_of(collection)
        start: Any = None
        while dim is not None:
            asking = client.scroll(
                self._prefix + collection,
                scroll_filter=selection,
                limit=min(batch, _PAGE),
                offset=start,
                with_payload=with_payload,
                with_vectors=False,
            )
            page, start = await self._present(collection, asking) or ([], None)
            for point in page:
                yield _record(point)
            if start is None:
                return

    async def set_payload(self, collection: str, where: Where, payload: Payload) -> None:
        selection = server_filter(where)
        client, dim = await self._connection.client(), await self._dim_of(collection)
        if dim is not None:
            writing = client.set_payload(self._prefix + collection, payload=dict(payload), points=selection, wait=True)
            await self._present(collection, writing)

    async def delete(self, collection: str, where: Where) -> None:
        selection = models.FilterSelector(filter=server_filter(narrowing_where(where)))
        client, dim = await self._connection.client(), await self._dim_of(collection)
        if dim is not None:
            await self._present(collection, client.delete(self._prefix + collection, points_selector=selection, wait=True))

    async def count(self, collection: str, *, where: Where = ANYTHING) -> int:
        selection = server_filter(where)
        client, dim = await self._connection.client(), await self._dim_of(collection)
        if dim is None:
            return 0
        answer = await self._present(collection, client.count(self._prefix + collection, count_filter=selection, exact=True))
        return 0 if answer is None else answer.count

    async def facet(self, collection: str, key: str, *, where: Where = ANYTHING, limit: int = 100) -> list[FacetCount]:
        selection = server_filter(where)
        client, dim = await self._connection.client(), await self._dim_of(collection)
        if dim is None or limit < 1:
            return []
        asking = client.facet(self._prefix + collection, checked_facet(key), facet_filter=selection, limit=limit, exact=True)
        answer = await self._present(collection, asking)
        return [] if answer is None else [FacetCount(str(hit.value), hit.count) for hit in answer.hits]

    async def sizes(self) -> list[CollectionSize]:
        client = await self._connection.client()
        names = await self.collections()
        found = await asyncio.gather(*(self._present(name, client.get_collection(self._prefix + name)) for name in names))
        return [CollectionSize(name, info.points_count or 0, None) for name, info in zip(names, found, strict=True) if info]

    async def drop(self, collection: str) -> None:
        client = await self._connection.client()
        await self._present(collection, client.delete_collection(self._prefix + collection))
        self._dims.pop(collection, None)

    async def flush(self) -> None:
        """The server answers a write once it is in its journal, and brings that onto the disk by its own clock."""
        await self.ping()

    async def _dim_of(self, collection: str) -> int | None:
        """The dimension of a collection that exists."""
        if collection not in self._dims:
            client, name = await self._connection.client(), self._prefix + collection
            if not await answered(client.collection_exists(name)):
                return None
            self._dims[collection] = _dim(await answered(client.get_collection(name)))
        return self._dims[collection]

    async def _present(self, collection: str, call: Awaitable[T]) -> T | None:
        """The answer, or None if the collection is gone since it was last seen."""
        try:
            return await answered(call)
        except Absent:
            self._dims.pop(collection, None)
            return None


def _quantization(storage: VectorStorage) -> models.ScalarQuantization | models.BinaryQuantization | None:
    """The short form stays in memory: it is what every search reads."""
    match storage.quantization:
        case "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        case _:
            return None


def _search_params(storage: VectorStorage) -> models.SearchParams | None:
    """By the short form first where there is one, then again by the vectors."""
    if storage.quantization == "off":
        return None
    return models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=storage.oversampling))


def _dim(info: models.CollectionInfo) -> int:
    vectors = info.config.params.vectors
    if not isinstance(vectors, models.VectorParams):
        raise InvalidRequest("The collection was not made by this product: it has named vectors, or none")
    return vectors.size


def _record(point: models.Record) -> Record:
    return Record(str(point.id), point.payload or {}, _vector(point.vector))


def _vector(vector: object) -> Vector | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)
