"""Snapshots of a cluster are of one node each: all are fetched and put back, or it is said why not."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.errors import VectorsUnavailable
from core.ports import Match, Point, Where
from core.schemas import Space
from core.settings import FolderSettings
from core.vectors.server import ServerStore
from core.vectors.server_backup import NodesMissing, server_snapshots
from tests.qdrant_cluster import Cluster, qdrant_cluster
from tests.qdrant_rest import Handler, RestQdrant

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

SPACE = Space(collection="clip-test", model_name="CLIP", dim=4, text=True)
NAME = SPACE.collection
_IMAGES = Where(must=(Match("kind", ("image",)),))


def settings_of(urls: str) -> FolderSettings:
    return FolderSettings(qdrant_url=urls, qdrant_prefer_grpc=False, qdrant_write_patience_s=0)


async def fill(cluster: Cluster) -> None:
    async with ServerStore(cluster.urls, prefer_grpc=False) as store:
        await store.ensure(SPACE)
        points = [Point(str(UUID(int=n + 1)), np.ones(4, np.float32), {"kind": "image", "width": n}) for n in range(30)]
        await store.upsert(NAME, points)


async def widths(cluster: Cluster) -> list[int]:
    async with ServerStore(cluster.urls, prefer_grpc=False) as store:
        return sorted([record.payload["width"] async for record in store.scroll(NAME)])


async def test_every_node_gives_its_snapshot_and_gets_its_own_back(tmp_path: Path) -> None:
    async with qdrant_cluster(3) as cluster:
        await fill(cluster)
        async with server_snapshots(settings_of(cluster.urls), cluster.urls) as snapshots:
            points = await snapshots.fetch(tmp_path / "vectors")
            assert points == {NAME: 30}
            assert sorted(path.name for path in (tmp_path / "vectors").iterdir()) == [
                f"{NAME}@{peer}.snapshot" for peer in (1000, 1001, 1002)
            ]
            assert cluster.qdrant.snapshots == {}
            async with ServerStore(cluster.urls, prefer_grpc=False) as store:
                await store.set_payload(NAME, _IMAGES, {"width": 99})
                await store.upsert(NAME, [Point(str(UUID(int=77)), np.ones(4, np.float32), {"kind": "image", "width": 77})])
            await snapshots.put_back(tmp_path / "vectors", points)
        assert await widths(cluster) == list(range(30))


async def test_a_cluster_that_was_made_anew_gets_one_snapshot_a_node(tmp_path: Path) -> None:
    async with qdrant_cluster(2) as cluster:
        await fill(cluster)
        async with server_snapshots(settings_of(cluster.urls), cluster.urls) as snapshots:
            points = await snapshots.fetch(tmp_path / "vectors")
    for number in (0, 1):
        (tmp_path / "vectors" / f"{NAME}@{1000 + number}.snapshot").rename(tmp_path / "vectors" / f"{NAME}@{number}.snapshot")
    async with qdrant_cluster(2) as anew:
        async with server_snapshots(settings_of(anew.urls), anew.urls) as snapshots:
            await snapshots.put_back(tmp_path / "vectors", points)
        assert await widths(anew) == list(range(30))


async def test_nodes_that_are_not_named_are_asked_for_before_anything_is_made(tmp_path: Path) -> None:
    async with qdrant_cluster(3) as cluster:
        await fill(cluster)
        for urls in (cluster.nodes[0].url, f"{cluster.nodes[0].url},{cluster.nodes[0].url},{cluster.nodes[1].url}"):
            async with server_snapshots(settings_of(urls), urls) as snapshots:
                with pytest.raises(NodesMissing, match="cluster of 3 nodes"):
                    await snapshots.fetch(tmp_path / "vectors")
        assert not (tmp_path / "vectors").exists()


async def test_a_backup_of_another_number_of_nodes_is_refused_before_anything_is_replaced(tmp_path: Path) -> None:
    async with qdrant_cluster(3) as cluster, qdrant_cluster(2) as smaller:
        await fill(cluster)
        await fill(smaller)
        async with server_snapshots(settings_of(cluster.urls), cluster.urls) as snapshots:
            points = await snapshots.fetch(tmp_path / "vectors")
        async with ServerStore(smaller.urls, prefer_grpc=False) as store:
            await store.set_payload(NAME, _IMAGES, {"width": 99})
        async with server_snapshots(settings_of(smaller.urls), smaller.urls) as snapshots:
            with pytest.raises(NodesMissing, match="restore to as many"):
                await snapshots.check(tmp_path / "vectors", points)
            with pytest.raises(NodesMissing, match="restore to as many"):
                await snapshots.put_back(tmp_path / "vectors", points)
        assert set(await widths(smaller)) == {99}


async def test_a_snapshot_that_arrives_otherwise_than_it_was_made_is_refused(tmp_path: Path) -> None:
    async with qdrant_cluster(1) as cluster:
        await fill(cluster)
        made = cluster.qdrant.snapshots

        class Garbled(dict[str, bytes]):
            def __getitem__(self, name: str) -> bytes:
                return super().__getitem__(name)[:-1] + b"?"

        cluster.qdrant.snapshots = Garbled(made)
        async with server_snapshots(settings_of(cluster.urls), cluster.urls) as snapshots:
            with pytest.raises(VectorsUnavailable, match="did not arrive"):
                await snapshots.fetch(tmp_path / "vectors")
        assert not cluster.qdrant.snapshots


@pytest.mark.parametrize("body", ["<html>Log in</html>", "[]", "null", '{"result": null}', '{"result": []}'])
@pytest.mark.parametrize("path", ["/cluster", "/snapshots", "/snapshots/upload"])
async def test_what_answers_well_and_is_no_qdrant_is_told_as_that_and_restores_nothing(
    tmp_path: Path, path: str, body: str
) -> None:
    @web.middleware
    async def proxy(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.endswith(path):
            return await handler(request)
        await request.read()
        return web.Response(text=body, content_type="text/html")

    (tmp_path / f"{NAME}.snapshot").write_text("{}")
    async with TestServer(RestQdrant().app(proxy)) as server:
        url = str(server.make_url("/"))
        async with ServerStore(url, prefer_grpc=False) as store:
            await store.ensure(SPACE)
        async with server_snapshots(settings_of(url), url) as snapshots:
            with pytest.raises(VectorsUnavailable, match="is no Qdrant"):
                await (snapshots.put_back(tmp_path, {NAME: 1}) if "upload" in path else snapshots.fetch(tmp_path / "vectors"))
