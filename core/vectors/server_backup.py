"""Snapshots of our collections on a Qdrant server: made there, fetched, checked, and put back.

A snapshot holds what lies on one node, so of a cluster there is one a node, and every node must be named. Those of different nodes
are of different moments; what is written in between is brought up to date by the reconcile after a restore.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter

from core.errors import ImageSearchError, VectorsUnavailable
from core.files import sync
from core.settings import FolderSettings, parts
from core.vectors.server import ServerStore

T = TypeVar("T")

_SNAPSHOT = ".snapshot"
_PATIENCE_S = 3600.0


class _Cluster(BaseModel):
    status: str
    peer_id: int | None = None
    peers: dict[str, object] = {}


class _Made(BaseModel):
    """A snapshot."""

    name: str
    checksum: str | None = None


class NodesMissing(ImageSearchError):
    """The settings do not name each node of the cluster, or the backup is of another number of them."""


@asynccontextmanager
async def server_snapshots(settings: FolderSettings, url: str) -> AsyncIterator[ServerSnapshots]:
    headers = {} if settings.qdrant_api_key is None else {"api-key": settings.qdrant_api_key}
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(ServerStore.of(settings, url))
        nodes = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=one, headers=headers, timeout=_PATIENCE_S, trust_env=False)
            )
            for one in parts(url)
        ]
        yield ServerSnapshots(store, [_Node(http) for http in nodes])


class ServerSnapshots:
    """Of the store's collections, on each of the nodes."""

    def __init__(self, store: ServerStore, nodes: Sequence[_Node]) -> None:
        self._store = store
        self._nodes = nodes

    async def fetch(self, target: Path) -> dict[str, int]:
        """A snapshot of each collection on each node into the folder `target`. Returns their points, replicas counted once.

        Raises OSError, VectorsUnavailable, NodesMissing.
        """
        peers = await self._peers()
        target.mkdir(mode=0o700)
        points = {}
        for size in await self._store.sizes():
            for peer, node in peers.items():
                await node.fetch(self._store.name_of(size.collection), target / _file_of(size.collection, peer))
            points[size.collection] = size.points
        return points

    async def check(self, source: Path, points: Mapping[str, int]) -> None:
        """Touches nothing. Raises VectorsUnavailable, NodesMissing."""
        peers = await self._peers()
        for collection in points:
            _placed(source, collection, peers)

    async def put_back(self, source: Path, points: Mapping[str, int]) -> None:
        """Each collection as its snapshots have it, in the place of what is there. Raises OSError, VectorsUnavailable, NodesMissing."""
        peers = await self._peers()
        placed = {collection: _placed(source, collection, peers) for collection in points}
        for collection, by_peer in placed.items():
            for peer, snapshot in by_peer.items():
                await peers[peer].put_back(self._store.name_of(collection), snapshot)

    async def _peers(self) -> dict[str, _Node]:
        """The nodes by the name that they have in their cluster; empty for a server that is alone. Raises NodesMissing."""
        told = [(await node.cluster(), node) for node in self._nodes]
        named = {own: node for (own, _), node in told}
        missing = {peer for (_, peers), _ in told for peer in peers} - named.keys()
        if missing or len(named) != len(self._nodes):
            raise NodesMissing(
                f"Qdrant is a cluster of {len(missing | named.keys())} nodes, and QDRANT_URL names {len(named)} of them: name each of them"
                " once, separated by commas, since a snapshot holds what lies on one node"
            )
        return named


class _Node:
    """`http` knows its address and key."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def cluster(self) -> tuple[str, set[str]]:
        """Its own name, and those of all nodes; empty ones where there is no cluster."""
        told = await self._asked(_Cluster, "GET", "/cluster")
        return (str(told.peer_id), set(told.peers)) if told.status == "enabled" else ("", set())

    async def fetch(self, name: str, target: Path) -> None:
        of_collection = f"/collections/{quote(name, safe='')}/snapshots"
        made = await self._asked(_Made, "POST", of_collection)
        try:
            await self._download(f"{of_collection}/{quote(made.name, safe='')}", target, checksum=made.checksum)
        finally:
            await self._asked(bool, "DELETE", f"{of_collection}/{quote(made.name, safe='')}")

    async def put_back(self, name: str, source: Path) -> None:
        """What this node holds of the collection is then what the snapshot has, whatever other nodes hold."""
        with source.open("rb") as snapshot:
            path = f"/collections/{quote(name, safe='')}/snapshots/upload"
            await self._asked(bool, "POST", path, params={"priority": "snapshot"}, files={"snapshot": snapshot})

    async def _asked(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        files: Mapping[str, object] | None = None,
    ) -> T:
        """What it answers is to be of this kind: a proxy's page in its place is no answer, however well it was sent."""
        try:
            answer = await self._http.request(method, path, params=params, files=files)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise VectorsUnavailable("Qdrant does not answer") from error
        if answer.is_error:
            raise VectorsUnavailable(f"Qdrant refuses a snapshot: {answer.status_code}")
        try:
            return TypeAdapter(kind).validate_python(answer.json()["result"])
        except (ValueError, KeyError, TypeError) as error:
            raise VectorsUnavailable(f"What answers {method} {path} is no Qdrant") from error

    async def _download(self, path: str, target: Path, *, checksum: str | None) -> None:
        digest = hashlib.sha256()
        try:
            async with self._http.stream("GET", path) as answer:
                if answer.is_error:
                    raise VectorsUnavailable(f"Qdrant refuses a snapshot: {answer.status_code}")
                with target.open("xb") as file:
                    async for chunk in answer.aiter_bytes(2**20):
                        file.write(chunk)
                        digest.update(chunk)
        except httpx.HTTPError as error:
            raise VectorsUnavailable("Qdrant does not answer") from error
        if checksum is not None and digest.hexdigest() != checksum:
            raise VectorsUnavailable("A snapshot did not arrive as Qdrant made it")
        sync([target])


def _file_of(collection: str, peer: str) -> str:
    return f"{collection}@{peer}{_SNAPSHOT}" if peer else f"{collection}{_SNAPSHOT}"


def _placed(source: Path, collection: str, peers: Mapping[str, _Node]) -> dict[str, Path]:
    """Which snapshot each node gets: its own, or in a cluster that was made anew one each. Raises NodesMissing."""
    made = sorted(path for path in source.glob(f"*{_SNAPSHOT}") if path.name.removesuffix(_SNAPSHOT).split("@")[0] == collection)
    if len(made) != len(peers):
        raise NodesMissing(
            f"the backup has {collection} as {len(made)} nodes held it, and Qdrant has {len(peers)} nodes: restore to as many"
        )
    own = {peer: source / _file_of(collection, peer) for peer in peers}
    return own if set(own.values()) == set(made) else dict(zip(sorted(peers), made, strict=True))
