"""The watcher over a cluster whose nodes restart: every picture is indexed, and none is analysed twice for it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from core.vectors.server import ServerStore
from tests.qdrant_cluster import qdrant_cluster, restart_now_and_then
from tests.state.house import RealHouse
from tests.unit.watcher.fakes import segments_in
from watcher.app import running_watcher

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.mark.parametrize("pictures", [60, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_pictures_are_indexed_and_analysed_once_while_nodes_restart(tmp_path: Path, pictures: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    house = RealHouse(tmp_path / "house")
    done = asyncio.Event()
    async with (
        qdrant_cluster(3) as cluster,
        ServerStore(cluster.urls, prefer_grpc=False, write_patience_s=60) as vectors,
        running_watcher(house.settings(), house.embedder, vectors) as watcher,
    ):
        restarts = asyncio.create_task(restart_now_and_then(cluster, random.Random(seed), done))
        house.fill(pictures)
        async with asyncio.timeout(pictures):
            while (await watcher.catalog.status()).images.indexed < pictures:
                await asyncio.sleep(0.05)
        done.set()
        assert await restarts >= 3
        status = await watcher.catalog.status()
        assert (status.images.pending, status.images.running, status.images.failed) == (0, 0, 0)
        assert set(house.embedder.analysed.values()) == {1}
        wanted = pictures + sum(segments_in(path.read_bytes()) for path in house.images.rglob("*.jpg"))
        assert [await vectors.count(space.collection) for space in house.embedder.models.spaces] == [wanted, wanted]
