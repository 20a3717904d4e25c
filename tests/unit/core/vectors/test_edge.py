"""What Qdrant Edge has beyond the contract of tests/congruence: files that outlive processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
from structlog.testing import capture_logs

from core import damage
from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES, IndexType, image_point_id
from core.ports import Match, Point, Where
from core.schemas import Space
from core.vectors.edge import EdgeStore
from core.vectors.edge_shard import Dropped
from core.vectors.edge_shards import open_files
from tests.ram import ram_folder

SPACE = Space(collection="clip-test", model_name="CLIP", dim=4, text=True)
NAME = SPACE.collection
ROOT = Path(__file__).resolve().parents[4]

WRITER = """
import asyncio, sys
from pathlib import Path
from core.vectors.edge import EdgeStore
from tests.unit.core.vectors.test_edge import NAME, SPACE, points_of

async def main():
    async with EdgeStore(Path(sys.argv[1])) as store:
        await store.ensure(SPACE)
        for start in range(await store.count(NAME), 1_000_000, 20):
            await store.upsert(NAME, points_of(start, start + 20))
            print("acknowledged", start + 20, flush=True)

asyncio.run(main())
"""


def points_of(first: int, end: int) -> list[Point]:
    vectors = np.random.default_rng(first).normal(size=(end - first, 4)).astype(np.float32)
    return [Point(image_point_id(str(n)), vectors[n - first], {"kind": "image", "n": n}) for n in range(first, end)]


@pytest.fixture
def work_folder() -> Iterator[Path]:
    with ram_folder() as made:
        yield made


@pytest.fixture
async def folder(work_folder: Path) -> Path:
    """A closed store with points 0..100."""
    async with EdgeStore(work_folder / "vectors") as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 100))
    return work_folder / "vectors"


async def numbers(folder: Path) -> set[int]:
    async with EdgeStore(folder) as store:
        return {record.payload["n"] async for record in store.scroll(NAME)}


@contextmanager
def writing_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


async def test_points_payloads_and_filters_survive_closing_and_opening(folder: Path) -> None:
    async with EdgeStore(folder) as store:
        assert await store.collections() == [NAME]
        assert await store.count(NAME, where=Where(must=(Match("n", (7, 8)),))) == 2
        [point] = points_of(0, 1)
        assert (await store.query(NAME, points_of(0, 100)[0].vector, limit=1))[0].id == point.id
        await store.ensure(SPACE)
        await store.delete(NAME, Where(must=(Match("n", (7,)),)))
    assert await numbers(folder) == set(range(100)) - {7}


def acknowledgements(process: subprocess.Popen[str]) -> Iterator[int]:
    """How many points the process was told are safe, each time it was told; its log lines stand between."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("acknowledged "):
            yield int(line.split()[1])


async def test_every_acknowledged_point_survives_kill_9(work_folder: Path) -> None:
    for kill_after in (3, 40, 150):
        with writing_process(work_folder) as process:
            acknowledged = [count for count, _ in zip(acknowledgements(process), range(kill_after), strict=False)]
        found = await numbers(work_folder)
        assert len(acknowledged) == kill_after
        assert found >= set(range(acknowledged[-1]))
        assert found == set(range(len(found)))


async def test_flushed_points_survive_a_power_cut_that_takes_all_but_the_journal(folder: Path, work_folder: Path) -> None:
    """The worst that a power cut can leave: the stored files as they were at the last start, the journal as `flush` left it."""
    after = work_folder / "after"
    shutil.copytree(folder, after)
    async with EdgeStore(folder) as store:
        await store.upsert(NAME, points_of(100, 400))
        await store.delete(NAME, Where(must=(Match("n", (5,)),)))
        await store.flush()
        shutil.rmtree(after / NAME / "wal")
        shutil.copytree(folder / NAME / "wal", after / NAME / "wal")
    assert await numbers(after) == set(range(400)) - {5}


async def test_a_power_cut_takes_no_folder_of_the_vectors(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = set(), os.fsync

    def noted(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    folder = work_folder.resolve() / "data" / "vectors"
    async with EdgeStore(folder) as store:
        await store.ensure(SPACE)
        assert {work_folder.resolve(), folder.parent, folder} <= synced


async def test_a_long_journal_is_trimmed_by_flush_and_the_points_stay(work_folder: Path) -> None:
    async with EdgeStore(work_folder, journal_limit_bytes=0) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 100))
        await store.flush()
        stored = work_folder / "stored"
        shutil.copytree(work_folder / NAME / "segments", stored / NAME / "segments")
        shutil.copy(work_folder / NAME / "edge_config.json", stored / NAME)
    assert await numbers(stored) == set(range(100))


async def test_an_interrupted_creation_leaves_nothing_that_hinders_the_next_start(work_folder: Path) -> None:
    for unfinished in (work_folder / f".creating-{NAME}", work_folder / ".creating-other"):
        (unfinished / "segments" / "half").mkdir(parents=True)
        (unfinished / "edge_config.json").write_text("{")
    async with EdgeStore(work_folder) as store:
        assert await store.collections() == []
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 3))
    assert sorted(path.name for path in work_folder.iterdir()) == [".lock", ".writes", NAME, f"{NAME}.seal"]


async def test_what_is_no_shard_is_left_alone(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "readme.txt").write_text("keep")
    async with EdgeStore(folder) as store:
        assert await store.collections() == [NAME]
        with pytest.raises(VectorsUnavailable):
            await store.ensure(Space(collection="readme.txt", model_name="CLIP", dim=4, text=True))
    assert (folder / "readme.txt").read_text() == "keep"


async def test_a_second_opener_is_told_who_has_the_vectors(folder: Path) -> None:
    async with EdgeStore(folder) as store:
        with pytest.raises(VectorsUnavailable, match=f"in use by another process .*{os.getpid()}"):
            async with EdgeStore(folder, lock_wait_s=0.1):
                pytest.fail("opened twice")
        assert await store.count(NAME) == 100
    assert len(await numbers(folder)) == 100


async def test_a_start_right_after_kill_9_opens_the_vectors(work_folder: Path) -> None:
    with writing_process(work_folder) as process:
        assert next(acknowledgements(process)) == 20
        with pytest.raises(VectorsUnavailable, match=str(process.pid)):
            async with EdgeStore(work_folder, lock_wait_s=0.1):
                pytest.fail("opened twice")
        process.send_signal(signal.SIGKILL)
        assert len(await numbers(work_folder)) >= 20


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "..", ".creating-x", "a\0b", "a" * 129, "a\n"])
async def test_a_name_that_leaves_the_folder_is_refused(work_folder: Path, name: str) -> None:
    async with EdgeStore(work_folder / "vectors") as store:
        with pytest.raises(InvalidRequest):
            await store.ensure(Space(collection=name, model_name="CLIP", dim=4, text=True))
        assert await store.query(name, np.ones(4, np.float32)) == []
    assert [path.name for path in work_folder.iterdir()] == ["vectors"]
    assert sorted(path.name for path in (work_folder / "vectors").iterdir()) == [".lock", ".writes"]


@pytest.mark.parametrize("damaged", ["segments/*/segment.json", "edge_config.json", "wal/open-*"])
async def test_a_damaged_collection_is_set_aside_and_can_be_filled_anew(folder: Path, damaged: str) -> None:
    harmed = [*(folder / NAME).glob(damaged)]
    assert harmed
    for path in harmed:
        path.write_bytes(b"not what it was" * 4)
    async with EdgeStore(folder) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, points_of(0, 100))
    assert await numbers(folder) == set(range(100))
    (repair,) = damage.repairs(folder)
    assert (folder / repair.kept_as / NAME / harmed[0].relative_to(folder / NAME)).exists() or damaged == "wal/open-*"
    assert str(folder) not in repair.detail


async def test_a_shard_without_indexes_gets_them(work_folder: Path) -> None:
    """A crash of an older version, or a new indexed field, may leave a shard that lacks some."""
    vectors = edge.EdgeVectorParams(size=4, distance=edge.Distance.Cosine)
    shard = edge.EdgeShard.create(str(work_folder / NAME), edge.EdgeConfig(vectors=vectors))
    shard.close()
    async with EdgeStore(work_folder) as store:
        await store.upsert(NAME, points_of(0, 10))
        await store.ensure(SPACE)
        assert await store.count(NAME, where=Where(must=(Match("n", (3,)),))) == 1
    shard = edge.EdgeShard.load(str(work_folder / NAME))
    assert {"kind", "image_id", "n", "taken_at"} <= set(shard.info().payload_schema)
    shard.close()


async def test_an_index_of_an_earlier_release_that_knows_no_beginnings_is_made_anew(
    work_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = work_folder / "vectors"
    with monkeypatch.context() as earlier:
        earlier.setitem(PAYLOAD_INDEXES, "image_id", IndexType.KEYWORD)
        async with EdgeStore(folder) as store:
            await store.ensure(SPACE)
            await store.upsert(NAME, points_of(0, 20))
    async with EdgeStore(folder) as store:
        await store.ensure(SPACE)
    engine = edge.EdgeShard.load(str(folder / NAME))
    params = engine.info().payload_schema["image_id"].params
    engine.close()
    assert isinstance(params, edge.KeywordIndexParams)
    assert params.prefix


async def test_a_failing_disk_is_reported_as_unavailable(folder: Path) -> None:
    async with EdgeStore(folder) as store:
        (folder / NAME / "wal").rename(folder / NAME / "gone")
        with pytest.raises(VectorsUnavailable):
            await store.flush()
        (folder / NAME / "gone").rename(folder / NAME / "wal")
        await store.flush()


async def test_a_store_not_entered_yet_is_unavailable(work_folder: Path) -> None:
    with pytest.raises(VectorsUnavailable):
        await EdgeStore(work_folder).ping()


async def test_facets_stay_exact_over_restarts_and_rewrites(work_folder: Path) -> None:
    """The engine calls these counts approximate: a point that lay in two of its segments would count twice."""
    rng = np.random.default_rng(3)
    truth: dict[str, list[str]] = {}
    for _ in range(4):
        async with EdgeStore(work_folder / "vectors") as store:
            await store.ensure(SPACE)
            rewritten = [
                Point(image_point_id(str(n)), np.ones(4, np.float32), {"kind": "image", "labels": [f"label {rng.integers(5)}"]})
                for n in rng.integers(0, 400, size=300).tolist()
            ]
            await store.upsert(NAME, rewritten)
            truth |= {point.id: point.payload["labels"] for point in rewritten}
            await store.flush()
            counted = {found.value: found.points for found in await store.facet(NAME, "labels")}
            assert counted == Counter(label for labels in truth.values() for label in labels)


async def test_a_question_asked_again_is_answered_without_the_engine_until_something_is_written(folder: Path) -> None:
    near, [new] = points_of(0, 100)[0].vector, points_of(500, 501)
    async with EdgeStore(folder) as store:
        before = await store.query(NAME, near, limit=3)
        await _without_engine(store)
        assert await store.query(NAME, near, limit=3) == before
        for other in (
            {"limit": 4},
            {"limit": 3, "offset": 1},
            {"limit": 3, "min_score": 0.5},
            {"limit": 3, "with_vectors": True},
        ):
            with pytest.raises(VectorsUnavailable):
                await store.query(NAME, near, **other)  # type: ignore[arg-type]
        with pytest.raises(VectorsUnavailable):
            await store.query(NAME, near, where=Where(must=(Match("n", (1,)),)), limit=3)
    async with EdgeStore(folder) as store:
        assert await store.query(NAME, near, limit=3) == before
        await store.upsert(NAME, [Point(new.id, near, {"n": 500})])
        assert {hit.payload["n"] for hit in await store.query(NAME, near, limit=2)} == {0, 500}
        await store.set_payload(NAME, Where(must=(Match("n", (500,)),)), {"n": 501})
        assert {hit.payload["n"] for hit in await store.query(NAME, near, limit=2)} == {0, 501}
        await store.delete(NAME, Where(must=(Match("n", (501,)),)))
        assert await store.query(NAME, near, limit=3) == before


async def _without_engine(store: EdgeStore) -> None:
    """Whatever still asks the engine fails from now on."""
    shard = store._shards.get(NAME)
    assert shard is not None
    engine, shard.engine = shard.engine, _Broken()  # type: ignore[assignment]
    engine.close()


class _Broken:
    def query(self, _: object) -> None:
        raise OSError("the engine was asked")

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_where_one_of_several_files_cannot_be_opened_none_is_left_open(work_folder: Path) -> None:
    (work_folder / "here").touch()
    before = set(Path("/dev/fd").iterdir())
    with pytest.raises(FileNotFoundError):
        open_files([work_folder, work_folder / "here", work_folder / "gone"])
    assert set(Path("/dev/fd").iterdir()) == before


async def test_a_collection_that_is_dropped_amid_questions_is_no_failure_of_the_engine(work_folder: Path) -> None:
    [point] = points_of(0, 1)
    anything = Where(must=(Match("n", (0,)),))
    async with EdgeStore(work_folder, journal_limit_bytes=1) as store:
        await store.ensure(SPACE)
        await store.upsert(NAME, [point])
        all_asked = threading.Event()
        asyncio.get_running_loop().call_later(0.3, all_asked.set)
        assert store._engine_thread is not None
        store._engine_thread.submit(all_asked.wait)  # or some of them would find that it is gone
        with capture_logs() as told:
            counted, _, _, *others = await asyncio.gather(
                store.count(NAME),
                store.drop(NAME),
                store.drop(NAME),
                store.count(NAME),
                store.query(NAME, point.vector),
                store.retrieve(NAME, [point.id]),
                store.set_payload(NAME, anything, {"width": 3}),
                store.upsert(NAME, [point]),
                store.flush(),
                store.sizes(),
                return_exceptions=True,
            )
        assert counted == 1
        assert [type(one) for one in others] == [Dropped] * 5 + [type(None), list]
        assert await store.count(NAME) == 0
        await store.ensure(SPACE)
        await store.flush()
    assert [line["event"] for line in told] == ["collection_dropped"]
    assert (work_folder / f"{NAME}.seal").exists(), "the next start would look at every point"
