"""An index is built while everything goes on: nothing that is written meanwhile is lost, and searches never wait for it."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.points import image_point_id
from core.ports import Match, Point, Where
from core.schemas import Space
from core.vectors import edge_growth
from core.vectors.edge import EdgeStore
from core.vectors.edge_index import READY
from core.vectors.edge_shard import Shard
from core.vectors.edge_shards import EdgeShards
from core.vectors.storage import PLAIN, VectorStorage
from tests.ram import ram_folder

DIM = 64
SPACE = Space(collection="clip-test", model_name="CLIP", dim=DIM, text=True)
NAME = SPACE.collection
ROOT = Path(__file__).resolve().parents[4]


def points_of(first: int, end: int, *, version: int = 1) -> list[Point]:
    vectors = np.random.default_rng([first, version]).normal(size=(end - first, DIM)).astype(np.float32)
    return [
        Point(
            image_point_id(str(n)),
            vectors[n - first],
            {"kind": "image", "n": n, "width": version, "labels": ["a" if n % 2 else "b"]},
        )
        for n in range(first, end)
    ]


def numbered(*numbers: int) -> Where:
    return Where(must=(Match("n", numbers),))


@pytest.fixture
def folder() -> Iterator[Path]:
    with ram_folder() as made:
        yield made / "vectors"


async def built(store: EdgeStore, folder: Path, generation: int = 1) -> None:
    async with asyncio.timeout(60):
        while not (folder / f"{NAME}@{generation}.ready").exists() or len(collections_in(folder)) > 1:
            await asyncio.sleep(0.02)


def collections_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


async def contents(store: EdgeStore) -> dict[int, int]:
    """Version by number."""
    return {record.payload["n"]: record.payload["width"] async for record in store.scroll(NAME)}


async def test_what_is_written_while_an_index_is_built_is_there_when_it_takes_over(folder: Path) -> None:
    async with EdgeStore(folder, index_from=2000) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 1999))
        assert collections_in(folder) == [NAME]
        await store.upsert(NAME, points_of(1999, 2000))
        expected = dict.fromkeys(range(2000), 1)
        n = 0
        async with asyncio.timeout(60):
            while not (folder / f"{NAME}@1.ready").exists():
                n += 1
                await store.upsert(NAME, points_of(n, n + 1, version=2))  # replaced
                await store.upsert(NAME, points_of(5000 + n, 5001 + n))  # new
                await store.delete(NAME, numbered(1000 + n))  # gone
                await store.set_payload(NAME, numbered(600 + n), {"width": 7})  # changed
                assert await store.query(NAME, points_of(0, 1)[0].vector, limit=3)
                expected |= {n: 2, 5000 + n: 1}
                expected.pop(1000 + n, None)
                expected |= {600 + n: 7} if 600 + n in expected else {}
                await asyncio.sleep(0.005)
        assert n > 3, "the index was built before anything could be written"
        await built(store, folder)
        assert collections_in(folder) == [f"{NAME}@1"]
        assert await contents(store) == expected
        await store.upsert(NAME, points_of(9000, 9001))
    async with EdgeStore(folder) as store:
        assert await contents(store) == expected | {9000: 1}
        found = {one.value: one.points for one in await store.facet(NAME, "labels")}
        assert found == Counter("a" if n % 2 else "b" for n in await contents(store))
        [replaced] = points_of(2, 3, version=2)
        assert (await store.query(NAME, replaced.vector, limit=1))[0].payload["n"] == 2


async def test_a_collection_grows_from_one_generation_to_the_next(folder: Path) -> None:
    async with EdgeStore(folder, index_from=1000) as store:
        await store.ensure(SPACE)
        for generation in (1, 2, 3):
            first = (generation - 1) * 1000
            await store.upsert(NAME, points_of(first, first + 1000))
            await built(store, folder, generation)
        assert len(await contents(store)) == 3000
        assert [size.points for size in await store.sizes()] == [3000]
    assert collections_in(folder) == [f"{NAME}@3"]


async def test_an_index_is_built_and_a_journal_trimmed_with_fewer_descriptors_than_a_shard_has_files(folder: Path) -> None:
    async with EdgeStore(folder, index_from=1000, journal_limit_bytes=1) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 999))
        room = 100
        assert sum(path.is_file() for path in folder.rglob("*")) > room
        few = len(list(Path("/dev/fd").iterdir())) + room
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        try:
            await store.upsert(NAME, points_of(999, 1000))
            await store.settled()
            with capture_logs() as told:
                await store.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert (folder / f"{NAME}@1.ready").exists()
        assert "journal_trimmed" in [line["event"] for line in told]


async def test_what_has_no_index_at_the_start_gets_one(folder: Path) -> None:
    async with EdgeStore(folder) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 500))
    async with EdgeStore(folder, index_from=500) as store:
        await built(store, folder)
        assert len(await contents(store)) == 500


async def test_closing_amid_a_build_leaves_the_shard_that_answered(folder: Path) -> None:
    async with EdgeStore(folder, index_from=500) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 500))
        await asyncio.sleep(0.05)
    assert [name for name in collections_in(folder) if not name.startswith(NAME)] == []
    async with EdgeStore(folder) as store:
        assert len(await contents(store)) == 500
        assert len(collections_in(folder)) == 1


async def test_a_build_that_fails_is_told_and_not_tried_again_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_growth, "BUILT", "never said")
    with capture_logs() as logs:
        async with EdgeStore(folder, index_from=500) as store:
            await store.ensure(SPACE)
            for n in range(0, 900, 100):
                await store.upsert(NAME, points_of(n, n + 100))
                await asyncio.sleep(0.05)
            async with asyncio.timeout(60):
                while not any(line["event"] == "index_not_built" for line in logs):
                    await asyncio.sleep(0.02)
            assert len(await contents(store)) == 900
    assert [line["event"] for line in logs].count("index_building") == 1
    assert collections_in(folder) == [NAME]


@pytest.mark.parametrize("trouble", ["the old one cannot be removed", "closed at that moment"])
async def test_what_goes_wrong_after_the_switch_never_costs_the_generation_that_holds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    switched = asyncio.Event()
    loop, switch = asyncio.get_running_loop(), EdgeShards.switch

    def switching(self: EdgeShards, *args: Any) -> None:
        switch(self, *args)
        loop.call_soon_threadsafe(switched.set)
        time.sleep(0.1)  # whoever is cancelled now is cancelled while this runs

    def refusing(path: Path, **options: Any) -> None:
        if path.name == NAME:
            raise OSError("cannot be removed")
        rmtree(path, **options)

    rmtree = shutil.rmtree
    monkeypatch.setattr(EdgeShards, "switch", switching)
    if trouble == "the old one cannot be removed":
        monkeypatch.setattr(edge_growth.shutil, "rmtree", refusing)
    async with EdgeStore(folder, index_from=500) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 500))
        async with asyncio.timeout(60):
            await switched.wait()
        if trouble != "closed at that moment":
            await store.settled()
            await store.upsert(NAME, points_of(500, 501))
    monkeypatch.undo()
    async with EdgeStore(folder) as store:
        assert len(await contents(store)) == (500 if trouble == "closed at that moment" else 501)
        assert collections_in(folder) == [f"{NAME}@1"]


async def test_a_switch_that_failed_midway_makes_no_later_build_ready_before_its_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker was made, and then the disk refused: what is built next must not find itself ready."""
    seen: list[bool] = []
    marker = folder / f"{NAME}@1.ready"

    def failing(self: EdgeShards, shard: Shard, path: Path, engine: object) -> None:
        seen.append(marker.exists())
        marker.touch()
        raise OSError("no space left")

    monkeypatch.setattr(EdgeShards, "switch", failing)
    async with EdgeStore(folder, index_from=300) as store:
        await store.ensure(SPACE)
        for first in (0, 300):
            await store.upsert(NAME, points_of(first, first + 300))
            await store.settled()
    assert seen == [False, False]
    monkeypatch.undo()
    async with EdgeStore(folder) as store:
        assert len(await contents(store)) == 600
        assert collections_in(folder) == [NAME]


@pytest.mark.parametrize(("limit", "value"), [("_LONGEST_COPY_S", 0.0), ("_ROOM", 1e12)])
async def test_a_copy_that_hangs_or_has_no_room_is_given_up_and_writes_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(edge_growth, limit, value)
    with capture_logs() as logs:
        async with EdgeStore(folder, index_from=300) as store:
            await store.ensure(SPACE)
            await store.upsert(NAME, points_of(0, 300))
            await store.settled()
            await store.upsert(NAME, points_of(300, 301))
            assert len(await contents(store)) == 301
    assert "index_not_built" in {line["event"] for line in logs}
    assert collections_in(folder) == [NAME]


async def test_writes_wait_for_no_builder_that_takes_its_time_to_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine that was seen to take 45 s, in which no picture was indexed, moved or deleted."""
    starting, started = asyncio.Event(), asyncio.Event()
    said = edge_growth._said

    async def said_late(process: Process, word: str) -> None:
        if word == READY:
            starting.set()
            await started.wait()
        await said(process, word)

    monkeypatch.setattr(edge_growth, "_said", said_late)
    async with EdgeStore(folder, index_from=300) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 300))
        async with asyncio.timeout(60):
            await starting.wait()
            await store.upsert(NAME, points_of(300, 301))
            await store.delete(NAME, numbered(0))
        started.set()
        await store.settled()
        assert (await contents(store)).keys() == {*range(1, 301)}
        assert collections_in(folder) == [f"{NAME}@1"]


async def test_generations_that_do_not_hold_are_removed_at_the_start(folder: Path) -> None:
    async with EdgeStore(folder, index_from=500) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 500))
        await built(store, folder)
    shutil.copytree(folder / f"{NAME}@1", folder / f"{NAME}@2")  # not ready: a kill while it was built
    shutil.copytree(folder / f"{NAME}@1", folder / NAME)  # a kill before it was removed
    (folder / f"{NAME}@7.ready").touch()
    async with EdgeStore(folder) as store:
        assert len(await contents(store)) == 500
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        ".writes",
        f"{NAME}@1",
        f"{NAME}@1.ready",
        f"{NAME}@1.seal",
    ]


WRITER = """
import asyncio, sys
from pathlib import Path
from core.vectors.edge import EdgeStore
from core.vectors.edge_index import READY
from core.vectors.edge_shard import Shard
from core.vectors.edge_shards import EdgeShards
from core.vectors.storage import PLAIN, VectorStorage
from tests.unit.core.vectors.test_edge_growth import NAME, SPACE, points_of

async def main():
    async with EdgeStore(Path(sys.argv[1]), index_from=150) as store:
        await store.ensure(SPACE)
        for start in range(await store.count(NAME), 1_000_000, 10):
            await store.upsert(NAME, points_of(start, start + 10))
            print("acknowledged", start + 10, flush=True)
            await asyncio.sleep(0.004)

asyncio.run(main())
"""


def written_until_killed(folder: Path, run_s: float) -> int:
    """How many points a process was told are safe, before it was killed so long after the first of them."""
    acknowledged, until = 0, 0.0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("acknowledged "):
                acknowledged = int(line.split()[1])
                until = until or time.monotonic() + run_s
                if time.monotonic() > until:
                    process.kill()
    return acknowledged


async def test_every_acknowledged_point_survives_kills_while_indexes_are_built(folder: Path) -> None:
    """Longer runs follow where the machine is too busy to have built an index in any of the short ones."""
    generations = set[str]()
    for number, run_s in enumerate((1.2, 1.7, 2.3, 0.9, 1.4, 6.0, 20.0)):
        if number >= 5 and len(generations) > 1:
            break
        acknowledged = written_until_killed(folder, run_s)
        async with EdgeStore(folder) as store:
            found = set(await contents(store))
            assert found >= set(range(acknowledged))
            assert found == set(range(len(found)))
            generations |= set(collections_in(folder))
            assert len(collections_in(folder)) == 1
    assert len(generations) > 1, "no index was ever taken over"


@pytest.mark.parametrize("storage", [PLAIN, VectorStorage("scalar", on_disk=True), VectorStorage("binary")], ids=str)
async def test_an_index_finds_what_exact_search_finds(folder: Path, storage: VectorStorage) -> None:
    """Enough points that the engine does build one: 20 MB of vectors. An older collection is brought to what is set."""
    dim = 512
    space = Space(collection="wide", model_name="CLIP", dim=dim, text=True)
    random = np.random.default_rng(8)
    centres = random.normal(size=(300, dim))
    vectors = (centres[random.integers(0, 300, 10_500)] + 0.7 * random.normal(size=(10_500, dim))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = [Point(image_point_id(str(n)), vector, {"kind": "image", "n": n}) for n, vector in enumerate(vectors)]
    async with EdgeStore(folder) as store:
        await store.ensure(space)
        await store.upsert("wide", points)
    with capture_logs() as logs:
        async with EdgeStore(folder, index_from=10_500, storage=storage) as store:
            await store.settled()
    assert [line["indexed"] for line in logs if line["event"] == "index_built"] == [10_500]
    config = json.loads((folder / "wide@1" / "edge_config.json").read_text())
    assert storage.quantization in json.dumps(config) or storage.quantization == "off"
    async with EdgeStore(folder, storage=storage) as store:
        right = 0
        for _ in range(20):
            query = vectors[random.integers(len(vectors))] + 0.02 * random.normal(size=dim).astype(np.float32)
            expected = {int(n) for n in np.argsort(-(vectors @ query))[:10]}
            hits = await store.query("wide", query, where=Where(must=(Match("kind", ("image",)),)), limit=10)
            right += len(expected & {hit.payload["n"] for hit in hits})
        assert right >= 194, f"recall@10 {right / 200}"
