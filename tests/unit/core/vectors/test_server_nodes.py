"""A cluster whose nodes restart, hang and refuse: writes outlast it, reads go elsewhere in their time, and nothing is said twice."""

from __future__ import annotations

import asyncio
import random
import time
from uuid import UUID

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES, IndexType
from core.ports import Match, Point, Where
from core.schemas import Space
from core.settings import FolderSettings
from core.vectors.server import ServerStore
from core.vectors.server_connection import KeyRefused, answered
from core.vectors.server_nodes import pauses
from core.vectors.storage import ClusterLayout, VectorStorage
from tests.qdrant_cluster import WRITE_TROUBLES, Cluster, Trouble, qdrant_cluster, restart_now_and_then
from tests.qdrant_rest import qdrant_rest

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
]

SPACE = Space(collection="clip-test", model_name="CLIP", dim=4, text=True)
NAME = SPACE.collection


def store_of(cluster: Cluster, *, patience_s: float = 30.0, timeout_s: float = 5.0) -> ServerStore:
    return ServerStore(cluster.urls, prefer_grpc=False, timeout_s=timeout_s, write_patience_s=patience_s)


def picture(n: int) -> list[Point]:
    """One to three points."""
    vector = np.asarray([1, n % 7, n % 11, 1], np.float32)
    return [Point(str(UUID(int=10 * n + i + 1)), vector, {"kind": "image", "n": i, "width": n}) for i in range(1 + n % 3)]


@pytest.mark.parametrize("nodes", [1, 3])
async def test_of_2000_upserts_through_nodes_that_restart_none_is_lost_and_none_fails(nodes: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    async with qdrant_cluster(nodes) as cluster, store_of(cluster) as store:
        await store.ensure(SPACE)
        done, slots = asyncio.Event(), asyncio.Semaphore(16)
        restarts = asyncio.create_task(restart_now_and_then(cluster, random.Random(seed), done))

        async def write(n: int) -> None:
            async with slots:
                await store.upsert(NAME, picture(n))

        await asyncio.gather(*(write(n) for n in range(2000)))
        done.set()
        assert await restarts >= 3
        for node in cluster.nodes:
            node.trouble = Trouble.NONE
        held = {record.id async for record in store.scroll(NAME, with_payload=False)}
        assert held == {point.id for n in range(2000) for point in picture(n)}


@pytest.mark.parametrize("trouble", WRITE_TROUBLES)
async def test_a_write_that_was_not_acknowledged_by_enough_replicas_is_repeated_until_it_is(trouble: Trouble) -> None:
    async with qdrant_cluster(1) as cluster, store_of(cluster) as store:
        await store.ensure(SPACE)
        [node] = cluster.nodes
        node.trouble = trouble
        for write in (
            store.upsert(NAME, picture(2)),
            store.set_payload(NAME, Where(must=(Match("kind", ("image",)),)), {"width": 9}),
            store.delete(NAME, Where(must=(Match("n", (1,)),))),
        ):
            node.trouble, node.troubled = trouble, 0
            writing = asyncio.create_task(write)
            while node.troubled < 2:
                await asyncio.sleep(0.005)
            assert not writing.done()
            node.trouble = Trouble.NONE
            await writing
        assert sorted([record.payload["n"] async for record in store.scroll(NAME)]) == [0, 2]


async def test_a_write_gives_up_when_its_patience_ends() -> None:
    async with qdrant_cluster(2) as cluster, store_of(cluster, patience_s=0.6) as store:
        await store.ensure(SPACE)
        for node in cluster.nodes:
            await node.stop()
        began = time.monotonic()
        with pytest.raises(VectorsUnavailable):
            await store.upsert(NAME, picture(1))
        assert 0.2 <= time.monotonic() - began < 5
        for node in cluster.nodes:
            await node.start()
        await store.upsert(NAME, picture(1))


async def test_what_a_server_refuses_is_not_repeated() -> None:
    async with qdrant_cluster(2) as cluster, store_of(cluster) as store:
        await store.ensure(SPACE)
        asked = sum(node.asked for node in cluster.nodes)
        with pytest.raises(InvalidRequest):
            await store.ensure(SPACE.model_copy(update={"dim": 5}))
        assert sum(node.asked for node in cluster.nodes) - asked <= 2


async def test_a_refused_key_is_said_at_once() -> None:
    async with qdrant_rest(api_key="right") as url, ServerStore(url, api_key="wrong", write_patience_s=60) as store:
        with pytest.raises(KeyRefused):
            await asyncio.wait_for(store.ensure(SPACE), 10)


@pytest.mark.parametrize("away", ["stopped", "hangs", "fails"])
async def test_searches_go_to_another_node_within_their_time(away: str) -> None:
    async with qdrant_cluster(3) as cluster, store_of(cluster, timeout_s=3.0) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, picture(1))
        sick = cluster.nodes[1]
        if away == "stopped":
            await sick.stop()
        else:
            sick.trouble = Trouble.HANGS if away == "hangs" else Trouble.NOT_ACTIVE
        for _ in range(12):
            began = time.monotonic()
            assert len(await store.query(NAME, picture(1)[0].vector)) == 2
            assert time.monotonic() - began < 3.5


async def test_a_node_that_failed_is_left_alone_for_a_while_and_the_others_share_the_work() -> None:
    async with qdrant_cluster(3) as cluster, store_of(cluster) as store:
        await store.ensure(SPACE)
        cluster.nodes[0].trouble = Trouble.NOT_ACTIVE
        for node in cluster.nodes:
            node.asked = 0
        for _ in range(30):
            await store.count(NAME)
        asked = [node.asked for node in cluster.nodes]
        assert asked[0] <= 1
        assert min(asked[1:]) >= 10


async def test_searches_end_in_their_time_when_every_node_hangs() -> None:
    async with qdrant_cluster(2) as cluster, store_of(cluster, timeout_s=1.0) as store:
        await store.ensure(SPACE)
        for node in cluster.nodes:
            node.trouble = Trouble.HANGS
        began = time.monotonic()
        with pytest.raises(VectorsUnavailable):
            await store.query(NAME, picture(1)[0].vector)
        assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN]
)
async def test_what_grpc_says_of_a_node_that_restarts_is_unavailable(code: grpc.StatusCode) -> None:
    async def call() -> None:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "Shard 0 is not available")

    with pytest.raises(VectorsUnavailable):
        await answered(call())


def test_pauses_grow_up_to_a_bound_and_differ() -> None:
    rows = [[pause for pause, _ in zip(pauses(), range(20), strict=False)] for _ in range(20)]
    assert all(0.05 <= row[0] <= 0.1 for row in rows)
    assert all(1.5 <= pause <= 3.0 for row in rows for pause in row[6:])
    assert len({tuple(row) for row in rows}) == 20


async def test_a_collection_is_made_as_the_settings_say() -> None:
    layout = ClusterLayout(shards=6, replicas=2, write_consistency=2, payload_on_disk=False)
    async with qdrant_cluster(1) as cluster:
        async with ServerStore(cluster.urls, prefer_grpc=False, layout=layout) as store:
            with capture_logs() as logs:
                await store.ensure(SPACE)
        wish = cluster.qdrant.wishes[f"imagesearch-{NAME}"]
        assert (wish.shard_number, wish.replication_factor, wish.write_consistency_factor) == (6, 2, 2)
        assert wish.on_disk_payload is False
        assert not [entry for entry in logs if entry["event"] == "collection_differs_from_settings"]


async def test_settings_that_a_collection_was_not_made_with_are_told_once() -> None:
    async with qdrant_cluster(1) as cluster:
        async with ServerStore(cluster.urls, prefer_grpc=False) as store:
            await store.ensure(SPACE)
        wanted = ClusterLayout(shards=6, replicas=2, payload_on_disk=False)
        kept = VectorStorage("scalar", on_disk=True)
        async with ServerStore(cluster.urls, prefer_grpc=False, layout=wanted, storage=kept) as store:
            with capture_logs() as logs:
                await store.ensure(SPACE)
                await store.ensure(SPACE)
        [told] = [entry["differences"] for entry in logs if entry["event"] == "collection_differs_from_settings"]
        assert [one.split()[0] for one in told] == [
            "QDRANT_SHARDS",
            "QDRANT_REPLICAS",
            "QDRANT_PAYLOAD_ON_DISK",
            "VECTORS_ON_DISK",
            "VECTORS_QUANTIZATION",
        ]


def test_the_cluster_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SHARDS": "6", "REPLICAS": "3", "WRITE_CONSISTENCY": "2", "READ_CONSISTENCY": "majority"}.items():
        monkeypatch.setenv(f"QDRANT_{name}", value)
    settings = FolderSettings()
    assert settings.cluster_layout == ClusterLayout(6, 3, 2, payload_on_disk=True)
    assert settings.qdrant_read_consistency == "majority"
    monkeypatch.setenv("QDRANT_READ_CONSISTENCY", "2")
    assert FolderSettings().qdrant_read_consistency == 2


async def test_an_index_of_an_earlier_release_that_knows_no_beginnings_is_made_anew_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with qdrant_cluster(1) as cluster, store_of(cluster) as store:
        with monkeypatch.context() as earlier:
            earlier.setitem(PAYLOAD_INDEXES, "image_id", IndexType.KEYWORD)
            await store.ensure(SPACE)
        indexes, [node] = cluster.qdrant.indexes[f"imagesearch-{NAME}"], cluster.nodes
        knows_beginnings = [getattr(indexes["image_id"].params, "prefix", None)]
        await store.ensure(SPACE)
        knows_beginnings.append(getattr(indexes["image_id"].params, "prefix", None))
        assert knows_beginnings == [None, True]
        node.asked = 0
        await store.ensure(SPACE)
        assert node.asked == 2
