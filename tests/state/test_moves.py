"""The vectors move to another home point by point, whatever breaks it off, and nothing is embedded again there."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from core import points
from core.errors import VectorsUnavailable
from core.ports import Match, Point, Record, VectorStore, Where
from core.schemas import Space
from core.settings import FolderSettings
from core.vectors.edge import EdgeStore
from core.vectors.server import ServerStore
from standalone.moves.course import COURSE
from standalone.moves.moving import CannotMove, MoveDiffers, move
from tests.qdrant_cluster import Cluster, qdrant_cluster
from tests.qdrant_grpc import qdrant_grpc
from tests.ram import ram_folder
from tests.state.house import RealHouse
from watcher.app import running_watcher
from watcher.database import LEDGER_NAME
from watcher.ledger import FileLedger

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
]

ROOT = Path(__file__).parents[2]
SPACES = [
    Space(collection="clip-a", model_name="A", dim=8, text=True),
    Space(collection="resnet-b", model_name="B", dim=3, text=False),
]


@pytest.fixture
def ram() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with qdrant_cluster(1) as running:
        yield running


def settings_of(data_dir: Path, url: str | None = None) -> FolderSettings:
    return FolderSettings(data_dir=data_dir, qdrant_url=url, qdrant_prefer_grpc=False)


def payload_of(n: int) -> dict[str, object]:
    facts = {"image_id": f"{n:064x}", "kind": "image", "n": n, "taken_at": n / 7, "mask": {"counts": "é"}}
    return {**facts, **points.paths_payload([f"d/grün {n}.jpg"])}


async def fill(store: VectorStore, count: int) -> None:
    chance = np.random.default_rng(1)
    for space in SPACES:
        await store.ensure(space)
        vectors = chance.normal(size=(count, space.dim)).astype(np.float32)
        made = [Point(points.image_point_id(f"{n:064x}"), vector, payload_of(n)) for n, vector in enumerate(vectors)]
        await store.upsert(space.collection, made)


async def all_of(store: VectorStore) -> dict[str, list[Record]]:
    return {name: [one async for one in store.scroll(name, with_vectors=True)] for name in await store.collections()}


def told(record: Record) -> tuple[str, dict[str, object]]:
    """Qdrant Edge reads the last digit of a number with an error."""
    taken_at = {"taken_at": round(record.payload["taken_at"], 6)}
    return record.id, {**record.payload, **taken_at}


async def assert_same(one: VectorStore, other: VectorStore) -> int:
    """Point by point."""
    here, there = await all_of(one), await all_of(other)
    assert here.keys() == there.keys()
    for name, records in here.items():
        assert [told(record) for record in records] == [told(record) for record in there[name]]
        vectors = [np.asarray([record.vector for record in found]) for found in (records, there[name])]
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    return sum(map(len, here.values()))


async def test_all_points_move_to_a_server_and_back_as_they_are(ram: Path, cluster: Cluster) -> None:
    first, second = ram / "first", ram / "second"
    async with EdgeStore(first / "vectors") as store:
        await fill(store, 700)
    moved = await move(settings_of(first), cluster.urls)
    assert moved.points == {space.collection: 700 for space in SPACES}
    assert moved.compared > 100
    back = await move(settings_of(second, cluster.urls), "edge")
    assert back.points == moved.points
    async with (
        EdgeStore(first / "vectors") as one,
        ServerStore(cluster.urls, prefer_grpc=False) as two,
        EdgeStore(second / "vectors") as three,
    ):
        assert await assert_same(one, two) == 1400
        assert await assert_same(two, three) == 1400
        where = Where(must=(Match("image_id", (f"{5:064x}",)),))
        assert await three.count(SPACES[0].collection, where=where) == 1
    assert not list(ram.glob(f"*/{COURSE}"))


async def test_a_server_under_another_name_is_no_other_home(ram: Path, cluster: Cluster) -> None:
    """Room would be made for the points where they are."""
    async with ServerStore(cluster.urls, prefer_grpc=False) as store:
        await fill(store, 20)
        with pytest.raises(CannotMove, match="one server"):
            await move(settings_of(ram, cluster.urls), cluster.urls.replace("127.0.0.1", "localhost"), replace=True)
        assert {name: len(records) for name, records in (await all_of(store)).items()} == {"clip-a": 20, "resnet-b": 20}


async def test_points_move_over_grpc(ram: Path) -> None:
    async with EdgeStore(ram / "vectors") as store:
        await fill(store, 50)
    async with qdrant_grpc() as url:
        await move(FolderSettings(data_dir=ram), url)
        async with EdgeStore(ram / "vectors") as one, ServerStore(url) as two:
            assert await assert_same(one, two) == 100


async def test_points_move_from_one_server_to_another(ram: Path, cluster: Cluster) -> None:
    async with ServerStore(cluster.urls, prefer_grpc=False) as store:
        await fill(store, 30)
    async with qdrant_cluster(3) as larger:
        await move(settings_of(ram, cluster.urls), larger.urls)
        async with ServerStore(cluster.urls, prefer_grpc=False) as one, ServerStore(larger.urls, prefer_grpc=False) as two:
            assert await assert_same(one, two) == 60


@pytest.mark.parametrize("to_server", [True, False])
@pytest.mark.parametrize(("count", "most_kills"), [(1500, 1), pytest.param(12_000, 12, marks=pytest.mark.long)])
async def test_a_move_that_is_killed_goes_on_where_it_was(
    ram: Path, cluster: Cluster, count: int, most_kills: int, *, to_server: bool
) -> None:
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    edge = ram / "vectors"
    if to_server:
        async with EdgeStore(edge) as store:
            await fill(store, count)
    else:
        async with ServerStore(cluster.urls, prefer_grpc=False) as store:
            await fill(store, count)
    environment = {**os.environ, "DATA_DIR": str(ram), "QDRANT_PREFER_GRPC": "false"}
    environment |= {} if to_server else {"QDRANT_URL": cluster.urls}
    command = [sys.executable, "-m", "standalone.moves", "--to", cluster.urls if to_server else "edge"]
    kills = 0
    while True:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        if kills < most_kills:
            while not (ram / COURSE).exists() and process.returncode is None:
                await asyncio.sleep(0.005)
            await asyncio.sleep(chance.uniform(0, 0.8))
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
                await process.communicate()
                continue
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert f"{2 * count:,} points in 2 collections" in said.decode()
        break
    assert kills
    async with EdgeStore(edge) as one, ServerStore(cluster.urls, prefer_grpc=False) as two:
        assert await assert_same(one, two) == 2 * count


async def test_what_changed_since_it_was_broken_off_moves_as_well(ram: Path, cluster: Cluster) -> None:
    house = RealHouse(ram / "house")
    house.fill(6)
    async with house.serving() as (watcher, vectors):
        await house.indexed(watcher, vectors)
    settings = FolderSettings(images_dir=house.images, data_dir=house.state, qdrant_prefer_grpc=False)

    def break_off(collection: str, copied: int, points: int) -> None:
        raise VectorsUnavailable("broken off")

    with pytest.raises(VectorsUnavailable):
        await move(settings, cluster.urls, told=break_off)
    assert (house.state / COURSE).exists()
    moved = next(iter(sorted(house.images.rglob("*.jpg"))))
    moved.rename(house.images / "elsewhere.jpg")
    async with house.serving() as (watcher, vectors):
        await house.indexed(watcher, vectors)
        while not any("elsewhere.jpg" in one.payload["paths"] for one in (await all_of(vectors))["clip"]):
            await asyncio.sleep(0.02)
    await move(settings, cluster.urls)
    async with EdgeStore(house.state / "vectors") as one, ServerStore(cluster.urls, prefer_grpc=False) as two:
        assert await assert_same(one, two)


async def test_after_a_move_the_product_finds_everything_and_asks_no_model(ram: Path, cluster: Cluster) -> None:
    house = RealHouse(ram / "house")
    house.fill(8)
    async with house.serving() as (watcher, vectors):
        await house.indexed(watcher, vectors)
    before = (house.state / LEDGER_NAME).read_bytes()
    await move(FolderSettings(images_dir=house.images, data_dir=house.state, qdrant_prefer_grpc=False), cluster.urls)
    assert (house.state / LEDGER_NAME).read_bytes() == before
    analysed = dict(house.embedder.analysed)
    async with (
        ServerStore(cluster.urls, prefer_grpc=False) as vectors,
        running_watcher(house.settings(), house.embedder, vectors) as watcher,
    ):
        async with asyncio.timeout(60):
            while (await watcher.catalog.status()).watcher.reconciling:
                await asyncio.sleep(0.02)
        status = await watcher.catalog.status()
        assert (status.images.indexed, status.images.pending, status.images.failed) == (8, 0, 0)
    assert house.embedder.analysed == analysed


async def test_points_that_are_in_the_new_home_already_are_not_touched_unless_it_is_wanted(ram: Path, cluster: Cluster) -> None:
    async with EdgeStore(ram / "vectors") as store:
        await fill(store, 20)
    async with ServerStore(cluster.urls, prefer_grpc=False) as store:
        await fill(store, 5)
        await store.set_payload("clip-a", Where(must=(Match("n", (1,)),)), {"n": 100})
        with pytest.raises(CannotMove, match="--replace"):
            await move(settings_of(ram), cluster.urls)
        assert await store.count("clip-a") == 5
        await move(settings_of(ram), cluster.urls, replace=True)
        assert await store.count("clip-a", where=Where(must=(Match("n", (100,)),))) == 0
        assert await store.count("clip-a") == 20


async def test_a_copy_that_is_not_whole_is_told_and_made_anew(ram: Path, cluster: Cluster) -> None:
    async with EdgeStore(ram / "vectors") as store:
        await fill(store, 40)
    async with ServerStore(cluster.urls, prefer_grpc=False) as other:
        calls = 0

        def lose(collection: str, copied: int, points: int) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                name = other.name_of(collection)
                ids = [point.id for point in cluster.qdrant.engine.scroll(name, limit=1)[0]]
                cluster.qdrant.engine.delete(name, ids)

        with pytest.raises(MoveDiffers, match="40 points here and 39 there"):
            await move(settings_of(ram), cluster.urls, told=lose)
        await move(settings_of(ram), cluster.urls)
        assert await other.count("clip-a") == 40


async def test_nothing_is_moved_while_the_product_runs_or_where_nothing_is(ram: Path, cluster: Cluster) -> None:
    async with EdgeStore(ram / "state" / "vectors") as store:
        await fill(store, 3)
        with pytest.raises(VectorsUnavailable, match="in use"):
            await move(settings_of(ram / "state"), cluster.urls)
    async with FileLedger(ram / "state"):
        with pytest.raises(Exception, match="another watcher works with the ledger"):
            await move(settings_of(ram / "state"), cluster.urls)
    with pytest.raises(CannotMove, match="DATA_DIR"):
        await move(settings_of(ram / "nothing"), cluster.urls)
    with pytest.raises(CannotMove, match="already"):
        await move(settings_of(ram / "state", cluster.urls), cluster.urls)
    with pytest.raises(CannotMove, match="no collections"):
        await move(settings_of(ram / "empty", cluster.urls), "edge")
    assert not (ram / "nothing").exists()
