"""What a server brings beyond the contract of tests/congruence: it may be away, locked, shared, or come back empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models
from structlog.testing import capture_logs

from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES, UNLINKED_FIELDS
from core.ports import Match, Point, Range, VectorStore, Where
from core.schemas import Space
from core.vectors.server import ServerStore
from core.vectors.storage import COMPARED_KB, PLAIN, SEARCH_EF, VectorStorage
from tests.ports import free_port
from tests.qdrant_grpc import qdrant_grpc
from tests.qdrant_rest import qdrant_rest

SPACE = Space(collection="clip-test", model_name="CLIP", dim=4, text=True)
NAME = SPACE.collection
POINT = Point("6f2f3d9e-6f0b-5c8e-9d1c-3a1f2f6f8a10", np.ones(4, np.float32), {"kind": "image"})
ONE_IMAGE = Where(must=(Match("kind", ("image",)),))


async def read_all(store: VectorStore) -> list[str]:
    return [record.id async for record in store.scroll(NAME)]


CALLS: dict[str, Callable[[VectorStore], Awaitable[object]]] = {
    "ping": lambda store: store.ping(),
    "ensure": lambda store: store.ensure(SPACE),
    "collections": lambda store: store.collections(),
    "upsert": lambda store: store.upsert(NAME, [POINT]),
    "query": lambda store: store.query(NAME, POINT.vector),
    "retrieve": lambda store: store.retrieve(NAME, [POINT.id]),
    "scroll": read_all,
    "set_payload": lambda store: store.set_payload(NAME, ONE_IMAGE, {"folders": []}),
    "delete": lambda store: store.delete(NAME, ONE_IMAGE),
    "count": lambda store: store.count(NAME),
    "flush": lambda store: store.flush(),
}


@asynccontextmanager
async def raw_server(answer: bytes | None, port: int = 0) -> AsyncIterator[int]:
    """Answers every connection with these bytes, or accepts it and keeps silent."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]
        done.set()


@pytest.mark.parametrize("name", CALLS)
async def test_a_server_that_was_never_there_is_unavailable(name: str) -> None:
    async with ServerStore(f"http://127.0.0.1:{free_port()}") as store:
        with pytest.raises(VectorsUnavailable):
            await CALLS[name](store)


@pytest.mark.parametrize("name", CALLS)
async def test_a_server_that_went_away_is_unavailable_and_serves_again_when_it_is_back(name: str) -> None:
    port = free_port()
    async with ServerStore(f"http://127.0.0.1:{port}", prefer_grpc=False) as store:
        async with qdrant_rest(port=port):
            await store.ensure(SPACE)
        with pytest.raises(VectorsUnavailable):
            await CALLS[name](store)
        async with qdrant_rest(port=port):
            await store.ensure(SPACE)
            await CALLS[name](store)


async def test_a_server_that_comes_up_later_is_found() -> None:
    port = free_port()
    async with ServerStore(f"http://127.0.0.1:{port}") as store:
        with pytest.raises(VectorsUnavailable):
            await store.ping()
        async with qdrant_rest(port=port):
            await store.ping()


@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n"]
)
async def test_a_server_that_hangs_fails_or_is_something_else_is_unavailable_within_the_time_out(answer: bytes | None) -> None:
    async with raw_server(answer) as port, ServerStore(f"http://127.0.0.1:{port}", timeout_s=1.0) as store:
        with pytest.raises(VectorsUnavailable):
            async with asyncio.timeout(10):
                await store.ping()


@pytest.mark.parametrize("name", CALLS)
async def test_a_proxy_that_knows_no_qdrant_for_a_moment_is_not_taken_for_a_qdrant_without_our_points(name: str) -> None:
    port = free_port()
    async with ServerStore(f"http://127.0.0.1:{port}", prefer_grpc=False) as store:
        async with qdrant_rest(port=port):
            await store.ensure(SPACE)
            await store.upsert(NAME, [POINT])
        for body in (b"404 page not found", b"[]", b'"status"', b""):
            head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            async with raw_server(head.encode() + body, port):
                with pytest.raises(VectorsUnavailable):
                    await CALLS[name](store)


@pytest.mark.parametrize("key", [None, "wrong"])
@pytest.mark.parametrize("serve", [qdrant_rest, qdrant_grpc])
async def test_a_refused_key_is_said(serve: Callable[..., AbstractAsyncContextManager[str]], key: str | None) -> None:
    async with serve(api_key="right") as url, ServerStore(url, api_key=key) as store:
        with pytest.raises(VectorsUnavailable, match="QDRANT_API_KEY"):
            await store.ping()


async def test_collections_of_others_are_neither_listed_nor_touched() -> None:
    async with qdrant_rest() as url, ServerStore(url, prefer_grpc=False) as store:
        other = AsyncQdrantClient(url=url, check_compatibility=False)
        await other.create_collection(NAME, vectors_config=models.VectorParams(size=9, distance=models.Distance.DOT))
        assert await store.collections() == []
        await store.ensure(SPACE)
        await store.upsert(NAME, [POINT])
        assert await store.collections() == [NAME]
        assert (await other.count(NAME)).count == 0
        await other.close()


async def test_a_collection_with_named_vectors_under_our_name_is_refused() -> None:
    async with qdrant_rest() as url, ServerStore(url, prefer_grpc=False) as store:
        other = AsyncQdrantClient(url=url, check_compatibility=False)
        named = {"image": models.VectorParams(size=4, distance=models.Distance.COSINE)}
        await other.create_collection(f"imagesearch-{NAME}", vectors_config=named)
        await other.close()
        with pytest.raises(InvalidRequest):
            await store.ensure(SPACE)


@pytest.mark.parametrize("serve", [qdrant_rest, qdrant_grpc])
async def test_a_collection_dropped_by_someone_reads_as_empty_and_is_made_again_by_ensure(
    serve: Callable[..., AbstractAsyncContextManager[str]],
) -> None:
    async with serve() as url, ServerStore(url) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, [POINT])
        other = AsyncQdrantClient(url=url, check_compatibility=False)
        for name in ("query", "retrieve", "scroll", "set_payload", "delete", "count"):
            await store.ensure(SPACE)
            await other.delete_collection(f"imagesearch-{NAME}")
            assert not await CALLS[name](store)
        await store.ensure(SPACE)
        await other.delete_collection(f"imagesearch-{NAME}")
        with pytest.raises(VectorsUnavailable):
            await store.upsert(NAME, [POINT])
        await store.ensure(SPACE)
        await store.upsert(NAME, [POINT])
        assert await store.count(NAME) == 1
        await other.close()


class Dropping:
    """A client whose collections are dropped by others as soon as they were seen."""

    def __init__(self, url: str) -> None:
        self._client = AsyncQdrantClient(url=url, check_compatibility=False)

    async def collection_exists(self, name: str) -> bool:
        exists = await self._client.collection_exists(name)
        await self._client.delete_collection(name)
        return exists

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("name", ["query", "retrieve", "scroll", "set_payload", "delete", "count"])
async def test_a_collection_dropped_between_two_looks_reads_as_empty(name: str) -> None:
    async with qdrant_rest() as url:
        async with ServerStore(url, prefer_grpc=False) as store:
            await store.ensure(SPACE)
        async with ServerStore(url, client=cast("AsyncQdrantClient", Dropping(url))) as store:
            assert not await CALLS[name](store)


async def test_two_stores_that_create_the_same_collection_at_once_both_succeed() -> None:
    async with qdrant_rest() as url, ServerStore(url, prefer_grpc=False) as one, ServerStore(url, prefer_grpc=False) as two:
        await asyncio.gather(one.ensure(SPACE), two.ensure(SPACE))
        await one.upsert(NAME, [POINT])
        assert await two.count(NAME) == 1


async def test_grpc_serves_where_it_is_offered_and_wanted() -> None:
    async with qdrant_grpc() as url:
        assert await protocol_of(url, prefer_grpc=True) == "grpc"
        assert await protocol_of(url, prefer_grpc=False) == "rest"


async def test_rest_serves_where_the_next_port_belongs_to_nobody_or_to_another() -> None:
    async with qdrant_rest() as url:
        assert await protocol_of(url, prefer_grpc=True) == "rest"
    async with qdrant_grpc(grpc_version="1.2.3") as url:
        assert await protocol_of(url, prefer_grpc=True) == "rest"


async def test_rest_serves_where_the_next_port_says_nothing() -> None:
    port = free_port()
    async with qdrant_rest(port=port) as url, raw_server(None, port + 1):
        assert await protocol_of(url, prefer_grpc=True) == "rest"


async def protocol_of(url: str, *, prefer_grpc: bool) -> str:
    with capture_logs() as logs:
        async with ServerStore(url, prefer_grpc=prefer_grpc, timeout_s=20.0) as store:
            await store.ensure(SPACE)
            await store.upsert(NAME, [POINT])
            assert [hit.id for hit in await store.query(NAME, POINT.vector)] == [POINT.id]
    [protocol] = [entry["protocol"] for entry in logs if entry["event"] == "qdrant_connected"]
    return str(protocol)


@pytest.mark.parametrize("name", CALLS)
async def test_a_grpc_server_that_went_away_is_unavailable(name: str) -> None:
    async with AsyncExitStack() as server:
        url = await server.enter_async_context(qdrant_grpc())
        async with ServerStore(url, timeout_s=20.0) as store:
            await store.ensure(SPACE)
            await server.aclose()
            with pytest.raises(VectorsUnavailable):
                await CALLS[name](store)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
@pytest.mark.parametrize("storage", [PLAIN, VectorStorage("scalar", on_disk=True), VectorStorage("binary")], ids=str)
async def test_a_collection_is_made_and_searched_as_its_vectors_are_to_be_kept(
    storage: VectorStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local Qdrant compares whole vectors whatever it is told; what it is told is what is looked at."""
    client = AsyncQdrantClient(":memory:")
    told: dict[str, Any] = {}
    create, query = client.create_collection, client.query_points

    async def creating(name: str, **options: Any) -> bool:
        told["vectors"] = options["vectors_config"]
        return await create(name, **options)

    async def querying(name: str, **options: Any) -> models.QueryResponse:
        told["search"] = options["search_params"]
        return await query(name, **options)

    monkeypatch.setattr(client, "create_collection", creating)
    monkeypatch.setattr(client, "query_points", querying)
    async with ServerStore("http://unused", client=client, storage=storage) as store:
        await store.ensure(SPACE)
        await store.query(SPACE.collection, np.ones(SPACE.dim, np.float32), where=Where(must=(Range("pixels", gte=9),)))
        assert told["search"].acorn.enable, "the graph has no links of their own for numbers of pixels"
        await store.query(SPACE.collection, np.ones(SPACE.dim, np.float32), where=Where(must=(Match("labels", ("dog",)),)))
        assert told["search"].acorn is None
    assert bool(told["vectors"].on_disk) == storage.on_disk
    assert told["vectors"].hnsw_config.full_scan_threshold == COMPARED_KB
    assert told["search"].hnsw_ef == SEARCH_EF
    if storage.quantization == "off":
        assert told["vectors"].quantization_config is None
        assert told["search"].quantization is None
    else:
        assert getattr(told["vectors"].quantization_config, storage.quantization).always_ram
        assert told["search"].quantization.rescore
        assert told["search"].quantization.oversampling == (4 if storage.quantization == "binary" else 2)


async def test_every_index_is_mapped_but_the_one_that_every_search_reads() -> None:
    async with qdrant_rest() as url, ServerStore(url) as store:
        await store.ensure(SPACE)
        client = AsyncQdrantClient(url, check_compatibility=False)
        made = (await client.get_collection(f"imagesearch-{NAME}")).payload_schema
        await client.close()
    on_disk = {key: getattr(index.params, "on_disk", None) for key, index in made.items()}
    assert on_disk == {key: key != "kind" for key in PAYLOAD_INDEXES}
    linked = {key for key, index in made.items() if getattr(index.params, "enable_hnsw", None) is not False}
    assert linked == set(PAYLOAD_INDEXES) - UNLINKED_FIELDS
