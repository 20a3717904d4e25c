"""A stand-in for a Qdrant server: the part of its REST API that `ServerStore` uses, over qdrant-client's in-memory engine.

    python -m tests.qdrant_rest --port 6333 [--api-key secret]

It keeps nothing when it ends, and is exact and slow: for tests, and for running the composed form where no server is to be had.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import signal
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID, uuid4

from aiohttp import web
from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


class Peer(NamedTuple):
    """Which node of a cluster answers, and which points lie on it."""

    number: int
    peers: int

    def holds(self, point_id: str) -> bool:
        return UUID(point_id).int % self.peers == self.number


PEER = web.AppKey("peer", Peer)
_ALONE = Peer(0, 1)

TITLE, VERSION = "qdrant - vector search engine", "1.15.0"
_MAX_BODY_BYTES = 32 * 2**20  # the server's own limit


class RestQdrant:
    """The routes. The engine is not safe for threads, so it has one of its own."""

    def __init__(self, *, api_key: str | None = None) -> None:
        self._api_key = api_key
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qdrant-rest")
        self.indexes: dict[str, dict[str, models.PayloadIndexInfo]] = {}
        self.wishes: dict[str, models.CreateCollection] = {}
        self.snapshots: dict[str, bytes] = {}
        self.engine = QdrantClient(":memory:")

    def app(self, *before: Middleware) -> web.Application:
        app = web.Application(middlewares=[*before, self._authorised, _problems], client_max_size=_MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/cluster", self._cluster),
                web.get("/collections", self._list),
                web.get("/collections/{name}", self._describe),
                web.get("/collections/{name}/exists", self._exists),
                web.put("/collections/{name}", self._create),
                web.delete("/collections/{name}", self._drop),
                web.put("/collections/{name}/index", self._index),
                web.put("/collections/{name}/points", self._upsert),
                web.post("/collections/{name}/points", self._retrieve),
                web.post("/collections/{name}/points/query", self._query),
                web.post("/collections/{name}/points/scroll", self._scroll),
                web.post("/collections/{name}/points/count", self._count),
                web.post("/collections/{name}/facet", self._facet),
                web.post("/collections/{name}/points/payload", self._set_payload),
                web.post("/collections/{name}/points/delete", self._delete),
                web.post("/collections/{name}/snapshots", self._make_snapshot),
                web.get("/collections/{name}/snapshots/{snapshot}", self._send_snapshot),
                web.delete("/collections/{name}/snapshots/{snapshot}", self._drop_snapshot),
                web.post("/collections/{name}/snapshots/upload", self._put_snapshot),
            ]
        )
        return app

    @web.middleware
    async def _authorised(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("api-key", "")
        if self._api_key is not None and request.path != "/" and not hmac.compare_digest(given, self._api_key):
            return web.Response(status=401, text="Must provide an API key or an Authorization bearer token")
        return await handler(request)

    async def _root(self, request: web.Request) -> web.Response:
        return web.json_response({"title": TITLE, "version": VERSION, "commit": "0"})

    async def _cluster(self, request: web.Request) -> web.Response:
        peer = request.app.get(PEER, _ALONE)
        if peer is _ALONE:
            return _result({"status": "disabled"})
        peers = {str(1000 + number): {"uri": f"http://node-{number}:6335/"} for number in range(peer.peers)}
        return _result({"status": "enabled", "peer_id": 1000 + peer.number, "peers": peers})

    async def _list(self, request: web.Request) -> web.Response:
        return _result(await self.run(self.engine.get_collections))

    async def _describe(self, request: web.Request) -> web.Response:
        name = await self._present(request)
        info = await self.run(partial(self.engine.get_collection, name))
        schema = {key: _plain(index) for key, index in self.indexes[name].items()}
        return _result({**_plain(info), "config": self._config(name, _plain(info.config)), "payload_schema": schema})

    def _config(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """With what was wished for when it was made, which the engine has no use for."""
        wish = self.wishes.get(name)
        if wish is None:
            return config
        told = wish.model_dump(mode="json", include={"shard_number", "replication_factor", "write_consistency_factor"})
        made = {key: value or 1 for key, value in told.items()}
        kept = wish.model_dump(mode="json", include={"on_disk_payload", "vectors"})
        return {**config, "params": {**config["params"], **made, **kept}}

    async def _exists(self, request: web.Request) -> web.Response:
        return _result({"exists": request.match_info["name"] in self.indexes})

    async def _create(self, request: web.Request) -> web.Response:
        name, wish = request.match_info["name"], models.CreateCollection.model_validate_json(await request.read())
        if name in self.indexes:
            return _error(409, f"Wrong input: Collection `{name}` already exists!")
        self.indexes[name], self.wishes[name] = {}, wish
        return _result(await self.run(partial(self.engine.create_collection, name, vectors_config=wish.vectors)))

    async def _drop(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.indexes.pop(name, None)
        return _result(await self.run(partial(self.engine.delete_collection, name)))

    async def _index(self, request: web.Request) -> web.Response:
        """The engine filters without an index; only that there is one is remembered."""
        name, wish = await self._present(request), await request.json()
        schema = wish["field_schema"]
        told = {"data_type": schema["type"], "params": schema} if isinstance(schema, dict) else {"data_type": schema}
        self.indexes[name][wish["field_name"]] = models.PayloadIndexInfo.model_validate({**told, "points": 0})
        return _acknowledged()

    async def _upsert(self, request: web.Request) -> web.Response:
        name, wish = await self._present(request), models.PointsList.model_validate_json(await request.read())
        await self.run(partial(self.engine.upsert, name, points=wish.points))
        return _acknowledged()

    async def _retrieve(self, request: web.Request) -> web.Response:
        name, wish = await self._present(request), models.PointRequest.model_validate_json(await request.read())
        options = {"with_payload": wish.with_payload, "with_vectors": wish.with_vector}
        return _result(await self.run(partial(self.engine.retrieve, name, ids=wish.ids, **options)))

    async def _query(self, request: web.Request) -> web.Response:
        name, wish = await self._present(request), models.QueryRequest.model_validate_json(await request.read())
        options = {
            "query_filter": wish.filter,
            "limit": wish.limit,
            "offset": wish.offset,
            "score_threshold": wish.score_threshold,
            "with_payload": wish.with_payload,
            "with_vectors": wish.with_vector,
        }
        return _result(await self.run(partial(self.engine.query_points, name, query=wish.query, **options)))

    async def _scroll(self, request: web.Request) -> web.Response:
        name, wish = await self._present(request), models.ScrollRequest.model_validate_json(await request.read())
        options = {
            "scroll_filter": wish.filter,
            "limit": wish.limit,
            "offset": wish.offset,
            "with_payload": wish.with_payload,
            "with_vectors": wish.with_vector,
        }
        points, following = await self.run(partial(self.engine.scroll, name, **options))
        return _result({"points": [_plain(point) for point in points], "next_page_offset": following})

    async def _count(self, request: web.Request) -> web.Response:
        name, wish = await self._present(request), models.CountRequest.model_validate_json(await request.read())
        return _result(await self.run(partial(self.engine.count, name, count_filter=wish.filter, exact=True)))

    async def _facet(self, request: web.Request) -> web.Response:
        name, wish = await self._present(request), models.FacetRequest.model_validate_json(await request.read())
        options = {"facet_filter": wish.filter, "limit": wish.limit, "exact": wish.exact}
        return _result(await self.run(partial(self.engine.facet, name, wish.key, **options)))

    async def _set_payload(self, request: web.Request) -> web.Response:
        name, wish = await self._present(request), models.SetPayload.model_validate_json(await request.read())
        points = wish.points if wish.filter is None else wish.filter
        await self.run(partial(self.engine.set_payload, name, payload=wish.payload, points=points))
        return _acknowledged()

    async def _delete(self, request: web.Request) -> web.Response:
        name = await self._present(request)
        selector: Any = TypeAdapter(models.PointsSelector).validate_json(await request.read())
        await self.run(partial(self.engine.delete, name, points_selector=selector))
        return _acknowledged()

    async def _present(self, request: web.Request) -> str:
        name = request.match_info["name"]
        if name not in self.indexes:
            raise LookupError(f"Not found: Collection `{name}` doesn't exist!")
        return name

    async def _make_snapshot(self, request: web.Request) -> web.Response:
        """Not in the server's format, but as opaque to whoever fetches it."""
        name = await self._present(request)
        info = await self.run(partial(self.engine.get_collection, name))
        found, _ = await self.run(partial(self.engine.scroll, name, limit=10**6, with_payload=True, with_vectors=True))
        held = {
            "vectors": _plain(info.config.params.vectors),
            "indexes": {key: _plain(index) for key, index in self.indexes[name].items()},
            "points": [_plain(one) for one in found if request.app.get(PEER, _ALONE).holds(str(one.id))],
        }
        snapshot = f"{name}-{uuid4()}.snapshot"
        body = self.snapshots[snapshot] = json.dumps(held).encode()
        checksum = hashlib.sha256(body).hexdigest()
        return _result({"name": snapshot, "size": len(body), "creation_time": None, "checksum": checksum})

    async def _send_snapshot(self, request: web.Request) -> web.Response:
        return web.Response(body=self.snapshots[request.match_info["snapshot"]])

    async def _drop_snapshot(self, request: web.Request) -> web.Response:
        del self.snapshots[request.match_info["snapshot"]]
        return _result(True)

    async def _put_snapshot(self, request: web.Request) -> web.Response:
        """Replaces what lies on this node of the collection."""
        name, form = request.match_info["name"], await request.post()
        held = json.loads(cast("web.FileField", form["snapshot"]).file.read())
        peer = request.app.get(PEER, _ALONE)
        if name in self.indexes:
            present, _ = await self.run(partial(self.engine.scroll, name, limit=10**6, with_payload=False))
            if replaced := [one.id for one in present if peer.holds(str(one.id))]:
                await self.run(partial(self.engine.delete, name, points_selector=replaced))
        else:
            vectors = models.VectorParams.model_validate(held["vectors"])
            await self.run(partial(self.engine.create_collection, name, vectors_config=vectors))
        points = [models.PointStruct(id=one["id"], vector=one["vector"], payload=one["payload"]) for one in held["points"]]
        if points:
            await self.run(partial(self.engine.upsert, name, points=points))
        self.indexes[name] = {key: models.PayloadIndexInfo.model_validate(one) for key, one in held["indexes"].items()}
        return _result(True)

    async def run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def close(self) -> None:
        await self.run(self.engine.close)
        self._thread.shutdown()


@web.middleware
async def _problems(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    try:
        return await handler(request)
    except LookupError as error:
        return _error(404, str(error.args[0]))
    except ValueError as error:  # pydantic's, and the engine's for a wrong dimension
        return _error(400, f"Wrong input: {error}")


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _result(value: Any) -> web.Response:
    result = [_plain(part) for part in value] if isinstance(value, list) else _plain(value)
    return web.json_response({"result": result, "status": "ok", "time": 0.001})


def _acknowledged() -> web.Response:
    return _result({"operation_id": 1, "status": "completed"})


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"status": {"error": message}, "time": 0.0}, status=status)


@asynccontextmanager
async def serving_rest(qdrant: RestQdrant, port: int) -> AsyncIterator[str]:
    """Serve on loopback; yields the URL."""
    runner = web.AppRunner(qdrant.app(), shutdown_timeout=1.0)
    await runner.setup()
    try:
        listener = socket.create_server(("127.0.0.1", port))
        await web.SockSite(runner, listener).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()
        await qdrant.close()


@asynccontextmanager
async def qdrant_rest(*, port: int = 0, api_key: str | None = None) -> AsyncIterator[str]:
    """A server that speaks REST alone; yields its URL."""
    async with serving_rest(RestQdrant(api_key=api_key), port) as url:
        yield url


async def _serve(port: int, api_key: str | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with qdrant_rest(port=port, api_key=api_key) as url:
        print(f"Qdrant stand-in on {url}", flush=True)
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=6333)
    parser.add_argument("--api-key")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Local mode is not recommended")  # said above 20,000 points
    asyncio.run(_serve(options.port, options.api_key))


if __name__ == "__main__":
    main()
