"""One contract over every home of the vectors: Qdrant Edge, qdrant-client in memory, over REST and gRPC, and a real server where there is one."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient

from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES
from core.ports import ANYTHING, Condition, FacetCount, Match, Point, Prefix, Range, Record, Substring, VectorStore, Where
from core.schemas import Space, Vector
from core.vectors.edge import EdgeStore
from core.vectors.server import ServerStore
from tests.fakes import accepts
from tests.qdrant_grpc import qdrant_grpc
from tests.qdrant_rest import qdrant_rest
from tests.ram import ram_folder

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

DIM = 8
SPACE = Space(collection="clip-test", model_name="CLIP", dim=DIM, text=True)
NAME = SPACE.collection
EVERYTHING = Where(must_not=(Match("kind", ("of no point",)),))


@pytest.fixture(scope="session")
def edge_folder() -> Iterator[Path]:
    """A folder with an empty collection, to be copied: making one takes a second of a busy disk."""

    async def make(folder: Path) -> None:
        async with EdgeStore(folder) as store:
            await store.ensure(SPACE)

    with ram_folder() as folder:
        asyncio.run(make(folder))
        yield folder


@pytest.fixture
def work_folder() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


async def open_home(home: str, stack: AsyncExitStack, work_folder: Path, edge_folder: Path) -> VectorStore:
    if home == "edge":
        shutil.copytree(edge_folder, work_folder / "vectors")
        return await stack.enter_async_context(EdgeStore(work_folder / "vectors"))
    if home == "memory":
        client = AsyncQdrantClient(":memory:")
        return await stack.enter_async_context(ServerStore("http://unused", client=client))
    if home == "rest":
        url = await stack.enter_async_context(qdrant_rest(api_key="secret"))
        return await stack.enter_async_context(ServerStore(url, api_key="secret", prefer_grpc=False))
    if home == "grpc":
        url = await stack.enter_async_context(qdrant_grpc(api_key="secret"))
        return await stack.enter_async_context(ServerStore(url, api_key="secret"))
    url = os.environ.get("TEST_QDRANT_URL", "")
    if not url:
        pytest.skip("needs a real server: set TEST_QDRANT_URL")
    prefix = f"test-{uuid4()}-"
    stack.push_async_callback(remove_collections, url, prefix)
    return await stack.enter_async_context(ServerStore(url, api_key=os.environ.get("TEST_QDRANT_API_KEY"), prefix=prefix))


async def remove_collections(url: str, prefix: str) -> None:
    client = AsyncQdrantClient(url=url, headers={"api-key": os.environ.get("TEST_QDRANT_API_KEY", "")}, check_compatibility=False)
    for found in (await client.get_collections()).collections:
        if found.name.startswith(prefix):
            await client.delete_collection(found.name)
    await client.close()


@pytest.fixture(params=["edge", "memory", "rest", "grpc", "server"])
async def store(request: pytest.FixtureRequest, work_folder: Path, edge_folder: Path) -> AsyncIterator[VectorStore]:
    async with AsyncExitStack() as stack:
        opened = await open_home(request.param, stack, work_folder, edge_folder)
        await opened.ensure(SPACE)
        yield opened


def point_id(n: int) -> str:
    return str(UUID(int=n + 1))


def vectors_of(count: int, *, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def points_of(count: int, *, seed: int = 0) -> list[Point]:
    """Points 0..count: two images of ten points each share nothing; folders and labels are lists, taken_at is a float."""
    return [
        Point(
            point_id(n),
            vector,
            {
                "kind": "image" if n % 10 == 0 else "segment",
                "image_id": f"{n // 10:064x}",
                "folders": ["all", f"folder {n % 3}"],
                "labels": [f"label {n % 5}"],
                "n": n % 10,
                "width": 100 + n,
                "taken_at": n + 0.5,
                "names": [f"/img_{n:02d}.jpg/", "/grün (1).png/"],
            },
        )
        for n, vector in enumerate(vectors_of(count, seed=seed))
    ]


async def scrolled(store: VectorStore, where: Where = ANYTHING, *, batch: int = 1000, with_payload: bool = True) -> list[Record]:
    return [record async for record in store.scroll(NAME, where=where, batch=batch, with_payload=with_payload)]


async def matching(store: VectorStore, where: Where) -> set[int]:
    return {UUID(record.id).int - 1 for record in await scrolled(store, where)}


def cosines(points: Sequence[Point], query: Vector) -> dict[str, float]:
    return {point.id: float(point.vector @ query / np.linalg.norm(point.vector) / np.linalg.norm(query)) for point in points}


# --- collections -----------------------------------------------------------------------------------------------------


async def test_ensuring_a_collection_again_keeps_its_points(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(3))
    await store.ensure(SPACE)
    assert await store.count(NAME) == 3


async def test_ensuring_another_dimension_is_refused_and_changes_nothing(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(3))
    with pytest.raises(InvalidRequest):
        await store.ensure(SPACE.model_copy(update={"dim": DIM + 1}))
    assert await store.count(NAME) == 3


async def test_two_that_ensure_at_once_both_succeed(store: VectorStore) -> None:
    other = SPACE.model_copy(update={"collection": "another"})
    await asyncio.gather(*(store.ensure(other) for _ in range(4)))
    await store.upsert("another", points_of(1))
    assert await store.count("another") == 1


async def test_collections_are_listed_sorted_and_kept_apart(store: VectorStore) -> None:
    await store.ensure(Space(collection="a-resnet", model_name="ResNet", dim=3, text=False))
    await store.upsert("a-resnet", [Point(point_id(0), np.ones(3, np.float32), {"kind": "image"})])
    assert await store.collections() == ["a-resnet", NAME]
    assert await store.count(NAME) == 0


async def test_sizes_are_told_of_each_collection_and_follow_what_is_written(store: VectorStore) -> None:
    await store.ensure(SPACE.model_copy(update={"collection": "another"}))
    await store.upsert(NAME, points_of(5))
    await store.delete(NAME, Where(must=(Match("n", (1, 3)),)))
    sizes = await store.sizes()
    assert [(size.collection, size.points, size.dim) for size in sizes] == [("another", 0, DIM), (NAME, 3, DIM)]
    assert all(size.disk_bytes is None or size.disk_bytes > 0 for size in sizes)


async def test_a_missing_collection_is_empty_to_every_reader(store: VectorStore) -> None:
    assert await store.query("missing", vectors_of(1)[0]) == []
    assert await store.retrieve("missing", [point_id(0)]) == []
    assert [record async for record in store.scroll("missing")] == []
    assert await store.count("missing") == 0
    await store.set_payload("missing", EVERYTHING, {"folders": []})
    await store.delete("missing", EVERYTHING)
    assert await store.collections() == [NAME]


async def test_writing_to_a_missing_collection_is_to_be_repeated_later(store: VectorStore) -> None:
    with pytest.raises(VectorsUnavailable):
        await store.upsert("missing", points_of(1))


async def test_a_store_that_answers_is_pinged_and_flushed_without_a_word(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(3))
    await store.ping()
    await store.flush()
    assert await store.count(NAME) == 3


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_an_upsert_replaces_vector_and_payload_of_the_same_id(store: VectorStore) -> None:
    first, second = vectors_of(2)
    await store.upsert(NAME, [Point(point_id(0), first, {"kind": "image", "labels": ["old"]})])
    await store.upsert(NAME, [Point(point_id(0), second, {"kind": "segment"})])
    [record] = await store.retrieve(NAME, [point_id(0)], with_vectors=True)
    assert record.payload == {"kind": "segment"}
    np.testing.assert_allclose(record.vector, second, atol=1e-6)
    assert await store.count(NAME) == 1
    assert await store.count(NAME, where=Where(must=(Match("labels", ("old",)),))) == 0


async def test_an_upsert_of_nothing_does_nothing(store: VectorStore) -> None:
    await store.upsert(NAME, [])
    assert await store.count(NAME) == 0


@pytest.mark.parametrize("vector", [np.ones(DIM + 1), np.ones((1, DIM)), np.full(DIM, np.nan), np.full(DIM, np.inf)])
async def test_a_vector_that_does_not_fit_is_refused_before_anything_is_written(
    store: VectorStore, vector: NDArray[np.float64]
) -> None:
    points = [*points_of(100), Point(point_id(100), vector.astype(np.float32), {})]
    with pytest.raises(InvalidRequest):
        await store.upsert(NAME, points)
    with pytest.raises(InvalidRequest):
        await store.query(NAME, vector.astype(np.float32))
    assert await store.count(NAME) == 0


async def test_payloads_come_back_as_they_were(store: VectorStore) -> None:
    payload = {
        "kind": "image",
        "paths": ["Ferien/Übersee/猫 и кот 🐈.jpg", "a'b\"c\\d\n.png"],
        "mask": {"size": [480, 640], "counts": "PQ]o0`0n>2N1O\\1f?"},
        "bbox": [0.5, 1.25, 3.0, 1e-3],
        "bytes": 2**40,
        "taken_at": 1_700_000_000.123456,
        "labels": [],
        "nothing": None,
        "flag": True,
    }
    await store.upsert(NAME, [Point(point_id(0), vectors_of(1)[0], payload)])
    [record] = await store.retrieve(NAME, [point_id(0)])
    [hit] = await store.query(NAME, vectors_of(1)[0])
    assert record.payload == hit.payload == payload


async def test_set_payload_merges_into_matching_points_and_leaves_their_vectors(store: VectorStore) -> None:
    points = points_of(20)
    await store.upsert(NAME, points)
    await store.set_payload(NAME, Where(must=(Match("image_id", (f"{1:064x}",)),)), {"folders": ["moved"], "paths": ["ä"]})
    records = await store.retrieve(NAME, [point.id for point in points], with_vectors=True)
    for record in records:
        n = UUID(record.id).int - 1
        changes = {"folders": ["moved"], "paths": ["ä"]} if n >= 10 else {}
        assert record.payload == {**points[n].payload, **changes}
        np.testing.assert_allclose(record.vector, points[n].vector, atol=1e-6)
    assert await matching(store, Where(must=(Match("folders", ("moved",)),))) == set(range(10, 20))
    assert await matching(store, Where(must=(Match("folders", ("all",)),))) == set(range(10))


async def test_delete_removes_what_matches_and_nothing_else(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(30))
    await store.delete(NAME, Where(must=(Match("image_id", (f"{1:064x}",)), Range("n", gte=4))))
    assert await matching(store, ANYTHING) == {*range(14), *range(20, 30)}
    assert await store.retrieve(NAME, [point_id(15)]) == []


async def test_delete_without_a_condition_is_refused(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(3))
    for collection in (NAME, "missing"):
        with pytest.raises(ValueError, match="empty filter"):
            await store.delete(collection, Where())
    assert await store.count(NAME) == 3


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_a_query_answers_the_nearest_first_with_their_cosine(store: VectorStore) -> None:
    points, query = points_of(200), vectors_of(1, seed=9)[0]
    await store.upsert(NAME, points)
    hits = await store.query(NAME, query, limit=15)
    expected = cosines(points, query)
    assert [hit.id for hit in hits] == sorted(expected, key=lambda found: -expected[found])[:15]
    np.testing.assert_allclose([hit.score for hit in hits], [expected[hit.id] for hit in hits], atol=1e-5)
    assert all(hit.payload == points[UUID(hit.id).int - 1].payload and hit.vector is None for hit in hits)


async def test_lengths_of_vectors_do_not_count(store: VectorStore) -> None:
    vector = vectors_of(1)[0]
    await store.upsert(NAME, [Point(point_id(0), vector * 5, {}), Point(point_id(1), -vector * 3, {})])
    hits = await store.query(NAME, vector * 7)
    assert [round(hit.score, 5) for hit in hits] == [1.0, -1.0]


async def test_pages_of_a_query_join_without_gap_or_overlap(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(50))
    query = vectors_of(1, seed=9)[0]
    whole = [hit.id for hit in await store.query(NAME, query, limit=50)]
    pages = [hit.id for start in range(0, 60, 20) for hit in await store.query(NAME, query, limit=20, offset=start)]
    assert pages == whole
    assert len(set(whole)) == 50
    assert await store.query(NAME, query, limit=0) == []


async def test_min_score_leaves_out_what_is_farther(store: VectorStore) -> None:
    points, query = points_of(100), vectors_of(1, seed=9)[0]
    await store.upsert(NAME, points)
    hits = await store.query(NAME, query, limit=100, min_score=0.3)
    assert {hit.id for hit in hits} == {found for found, score in cosines(points, query).items() if score > 0.3}


async def test_vectors_come_along_on_demand(store: VectorStore) -> None:
    points = points_of(5)
    await store.upsert(NAME, points)
    for hit in await store.query(NAME, points[0].vector, with_vectors=True):
        assert hit.vector is not None
        assert hit.vector.dtype == np.float32
        np.testing.assert_allclose(hit.vector, points[UUID(hit.id).int - 1].vector, atol=1e-6)


async def test_retrieve_answers_those_that_exist_once_each(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(5))
    records = await store.retrieve(NAME, [point_id(1), point_id(77), point_id(3), point_id(1)])
    assert sorted(record.id for record in records) == [point_id(1), point_id(3)]
    assert all(record.vector is None and record.payload["kind"] == "segment" for record in records)
    assert await store.retrieve(NAME, []) == []


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        pytest.param(ANYTHING, set(range(30)), id="anything"),
        pytest.param(Where(must=(Match("kind", ("image",)),)), {0, 10, 20}, id="a word"),
        pytest.param(Where(must=(Match("labels", ("label 1", "label 9")),)), {1, 6, 11, 16, 21, 26}, id="one of a list"),
        pytest.param(Where(must=(Match("n", (3, 4)),)), {3, 4, 13, 14, 23, 24}, id="a number"),
        pytest.param(Where(must=(Match("n", ("three", 3)),)), {3, 13, 23}, id="words and numbers"),
        pytest.param(Where(must=(Match("n", ()),)), set(), id="none of nothing"),
        pytest.param(Where(must_not=(Match("kind", ("segment",)),)), {0, 10, 20}, id="not"),
        pytest.param(Where(must_not=(Match("kind", ("image",)), Range("n", gte=3))), {1, 2, 11, 12, 21, 22}, id="neither nor"),
        pytest.param(Where(must=(Range("width", gte=105, lte=107),)), {5, 6, 7}, id="closed interval of integers"),
        pytest.param(Where(must=(Range("taken_at", gte=27.5),)), {27, 28, 29}, id="from a float"),
        pytest.param(Where(must=(Range("taken_at", lte=2.4),)), {0, 1}, id="up to a float"),
        pytest.param(Where(must=(Substring("names", "g_1"),)), set(range(10, 20)), id="a part"),
        pytest.param(Where(must=(Substring("names", "/img_0"), Substring("names", "5.jpg/"))), {5}, id="beginning and end"),
        pytest.param(Where(must=(Substring("names", "rün (1)"),)), set(range(30)), id="a part of the second value"),
        pytest.param(Where(must=(Substring("names", "IMG"),)), set(), id="a part in another case"),
        pytest.param(Where(must_not=(Substring("names", "5."),)), set(range(30)) - {5, 15, 25}, id="no such part"),
        pytest.param(Where(must=(Prefix("image_id", "0" * 63 + "1"),)), set(range(10, 20)), id="a beginning"),
        pytest.param(Where(must=(Prefix("image_id", ""), Match("kind", ("image",)))), {0, 10, 20}, id="any beginning"),
        pytest.param(Where(must=(Prefix("image_id", "1"),)), set(), id="a part that is no beginning"),
        pytest.param(Where(must=(Prefix("names", "/grün"), Prefix("names", "/img_2"))), set(range(20, 30)), id="of any value"),
        pytest.param(Where(must_not=(Prefix("names", "/img_0"),)), set(range(10, 30)), id="no such beginning"),
        pytest.param(
            Where(must=(Match("folders", ("folder 2",)), Range("width", lte=115)), must_not=(Match("n", (2, 5)),)),
            {8, 11, 14},
            id="all together",
        ),
    ],
)
async def test_a_filter_selects_the_same_for_every_call(store: VectorStore, where: Where, expected: set[int]) -> None:
    await store.upsert(NAME, points_of(30))
    assert await matching(store, where) == expected
    assert await store.count(NAME, where=where) == len(expected)
    hits = await store.query(NAME, vectors_of(1)[0], where=where, limit=50)
    assert {UUID(hit.id).int - 1 for hit in hits} == expected


async def test_a_filter_on_a_field_without_an_index_is_refused(store: VectorStore) -> None:
    where = Where(must=(Match("paths", ("a.jpg",)),))
    for call in (store.count(NAME, where=where), store.query(NAME, vectors_of(1)[0], where=where), store.delete(NAME, where)):
        with pytest.raises(ValueError, match="paths"):
            await call


async def test_parts_are_asked_only_of_fields_indexed_for_them(store: VectorStore) -> None:
    for condition in (Substring("labels", "label"), Prefix("labels", "label")):
        with pytest.raises(ValueError, match="labels"):
            await store.count(NAME, where=Where(must=(condition,)))


@pytest.mark.parametrize(
    ("key", "where", "limit", "expected"),
    [
        pytest.param("labels", ANYTHING, 10, {f"label {n}": 6 for n in range(5)}, id="all, equally frequent ones by value"),
        pytest.param("labels", ANYTHING, 2, {"label 0": 6, "label 1": 6}, id="the first of equally frequent ones"),
        pytest.param("folders", ANYTHING, 2, {"all": 30, "folder 0": 10}, id="the most frequent first"),
        pytest.param("labels", Where(must=(Match("kind", ("image",)),)), 10, {"label 0": 3}, id="of some points"),
        pytest.param(
            "folders",
            Where(must=(Range("n", gte=8), Substring("names", "g_1")), must_not=(Match("folders", ("folder 1",)),)),
            10,
            {"all": 1, "folder 0": 1},
            id="under several conditions",
        ),
        pytest.param("labels", Where(must=(Match("kind", ("none",)),)), 10, {}, id="of no point"),
        pytest.param("labels", ANYTHING, 0, {}, id="none asked for"),
    ],
)
async def test_facets_count_the_values_of_matching_points(
    store: VectorStore, key: str, where: Where, limit: int, expected: dict[str, int]
) -> None:
    await store.upsert(NAME, points_of(30))
    counted = await store.facet(NAME, key, where=where, limit=limit)
    assert counted == [FacetCount(value, points) for value, points in expected.items()]


async def test_facets_forget_what_was_overwritten_and_deleted(store: VectorStore) -> None:
    await store.upsert(NAME, points_of(30))
    await store.set_payload(NAME, Where(must=(Range("n", lte=3),)), {"labels": ["new"]})
    await store.delete(NAME, Where(must=(Range("n", gte=4, lte=8),)))
    assert await store.facet(NAME, "labels") == [FacetCount("new", 12), FacetCount("label 4", 3)]


async def test_facets_are_counted_of_keywords_alone(store: VectorStore) -> None:
    for key in ("width", "paths"):
        with pytest.raises(ValueError, match=key):
            await store.facet(NAME, key)


async def test_a_collection_of_an_earlier_release_gets_the_indexes_that_it_lacks(
    work_folder: Path, edge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its points are found by what is written to them later, on every home."""
    for home in ("edge", "rest", "grpc"):
        async with AsyncExitStack() as stack:
            folder = work_folder / home
            folder.mkdir()
            with monkeypatch.context() as earlier:
                for key in ("names", "lat", "pixels"):
                    earlier.delitem(PAYLOAD_INDEXES, key)
                opened = await open_home(home, stack, folder, edge_folder)
                old = SPACE.model_copy(update={"collection": "old"})
                await opened.ensure(old)
                await opened.upsert("old", points_of(3))
            await opened.ensure(old)
            await opened.set_payload("old", Where(must=(Match("n", (1,)),)), {"names": ["/a.jpg/"], "lat": -1.5})
            where = Where(must=(Substring("names", "/a"), Range("lat", lte=0)))
            assert await opened.count("old", where=where) == 1, home


@pytest.mark.parametrize("batch", [1, 7, 1000])
async def test_scroll_answers_each_point_once_in_order_of_id(store: VectorStore, batch: int) -> None:
    points = points_of(50)
    await store.upsert(NAME, [points[n] for n in np.random.default_rng(1).permutation(50)])
    records = await scrolled(store, batch=batch)
    assert [record.id for record in records] == [point.id for point in points]
    assert [record.payload for record in records] == [point.payload for point in points]
    some = await scrolled(store, Where(must=(Match("kind", ("image",)),)), batch=batch, with_payload=False)
    assert [(record.id, record.payload) for record in some] == [(point_id(n), {}) for n in range(0, 50, 10)]


async def test_scroll_begins_at_an_id_whether_there_is_such_a_point_or_not_and_brings_vectors(store: VectorStore) -> None:
    points = points_of(30)
    await store.upsert(NAME, [*points[:10], *points[15:]])
    found = [record async for record in store.scroll(NAME, first=points[12].id, with_vectors=True, batch=4)]
    assert [record.id for record in found] == [point.id for point in points[15:]]
    for record, point in zip(found, points[15:], strict=True):
        assert record.payload == point.payload
        np.testing.assert_allclose(record.vector, point.vector, atol=1e-6)
    assert [record.id async for record in store.scroll(NAME, first=points[29].id)] == [points[29].id]
    assert [record.id async for record in store.scroll(NAME, first=str(UUID(int=2**128 - 1)))] == []


async def test_thousands_of_points_are_written_counted_scrolled_and_searched(store: VectorStore) -> None:
    points, query = points_of(3000), vectors_of(1, seed=9)[0]
    await store.upsert(NAME, points)
    assert await store.count(NAME) == 3000
    assert [record.id for record in await scrolled(store, with_payload=False)] == [point.id for point in points]
    assert len(await store.retrieve(NAME, [point.id for point in points])) == 3000
    expected = cosines(points, query)
    assert [hit.id for hit in await store.query(NAME, query, limit=5)] == sorted(expected, key=lambda found: -expected[found])[:5]


async def test_writers_and_readers_at_once_disturb_nobody(store: VectorStore) -> None:
    points, query = points_of(400), vectors_of(1, seed=9)[0]

    async def write(start: int) -> None:
        for n in range(start, start + 100, 20):
            await store.upsert(NAME, points[n : n + 20])

    async def read() -> None:
        for _ in range(10):
            hits = await store.query(NAME, query, limit=500)
            assert len({hit.id for hit in hits}) == len(hits)
            ids = [record.id for record in await scrolled(store, batch=50)]
            assert ids == sorted(set(ids))

    await asyncio.gather(*(write(start) for start in range(0, 400, 100)), read(), read())
    assert await matching(store, ANYTHING) == set(range(400))


async def test_nothing_works_after_the_store_was_left(work_folder: Path, edge_folder: Path) -> None:
    for home in ("edge", "memory", "rest", "grpc"):
        async with AsyncExitStack() as stack:
            left = await open_home(home, stack, work_folder, edge_folder)
            await left.ping()
        with pytest.raises(VectorsUnavailable):
            await left.ping()
        with pytest.raises(VectorsUnavailable):
            await left.upsert(NAME, points_of(1))


# --- dropping


async def test_a_dropped_collection_is_gone_at_once_and_may_be_made_anew(store: VectorStore) -> None:
    other = Space(collection="other-test", model_name="Other", dim=3, text=True)
    await store.ensure(other)
    await store.upsert(NAME, points_of(3))

    await store.drop(NAME)
    await store.drop("never-was")

    assert await store.collections() == [other.collection]
    assert await store.query(NAME, vectors_of(1)[0]) == []
    assert await store.count(NAME) == 0
    with pytest.raises(VectorsUnavailable):
        await store.upsert(NAME, points_of(1))
    await store.ensure(SPACE.model_copy(update={"dim": 5}))
    assert await store.count(NAME) == 0
    assert [size.collection for size in await store.sizes()] == [NAME, other.collection]


async def test_a_collection_of_several_generations_does_not_come_back_after_it_was_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    async with EdgeStore(folder) as left:
        await left.ensure(SPACE)
    shutil.copytree(folder / NAME, folder / f"{NAME}@1")
    (folder / f"{NAME}@1.ready").touch()
    async with EdgeStore(folder) as opened:
        shutil.copytree(folder / f"{NAME}@1", folder / NAME)  # the sweep at the start took it
        await opened.drop(NAME)
    assert [path.name for path in folder.iterdir() if NAME in path.name] == []
    async with EdgeStore(folder) as again:
        assert await again.collections() == []


async def test_a_kill_in_the_middle_of_a_drop_leaves_the_collection_or_nothing(tmp_path: Path) -> None:
    """`.creating-` is what a renamed folder is called until it is removed: the next start sweeps it."""
    folder = tmp_path / "vectors"
    async with EdgeStore(folder) as left:
        await left.ensure(SPACE)
    (folder / NAME).rename(folder / f".creating-{NAME}-0123")
    async with EdgeStore(folder) as again:
        assert await again.collections() == []
    assert [path.name for path in folder.iterdir() if NAME in path.name] == []


# --- the homes agree -------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["red", "blue", "grün", ""])
SMALL = st.integers(-3, 3)
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "kind": WORDS,
        "labels": st.lists(WORDS, max_size=3),
        "n": SMALL,
        "taken_at": st.sampled_from([-1.5, 0.0, 0.25, 2.0]),
        "names": st.lists(WORDS, max_size=3),
    },
)
CONDITIONS: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Match, st.sampled_from(["kind", "labels"]), st.lists(WORDS, max_size=3).map(tuple)),
    st.builds(Match, st.just("n"), st.lists(SMALL, max_size=3).map(tuple)),
    st.builds(
        Range, st.sampled_from(["n", "taken_at"]), gte=st.none() | st.sampled_from([-2.0, 0.0, 0.25]), lte=st.none() | SMALL
    ),
)
PARTS = st.sampled_from(["e", "ed", "r", "ü", "bluer", ""])
CONDITIONS |= st.builds(Substring, st.just("names"), PARTS) | st.builds(Prefix, st.just("names"), PARTS)
WHERES = st.builds(Where, st.lists(CONDITIONS, max_size=2).map(tuple), st.lists(CONDITIONS, max_size=2).map(tuple))


@pytest.fixture
async def homes(work_folder: Path, edge_folder: Path) -> AsyncIterator[list[VectorStore]]:
    async with AsyncExitStack() as stack:
        stores = [await open_home(home, stack, work_folder, edge_folder) for home in ("edge", "memory")]
        for opened in stores:
            await opened.ensure(SPACE)
        yield stores


@given(payloads=st.lists(PAYLOADS, max_size=12), where=WHERES, seed=st.integers(0, 2**32 - 1), limit=st.integers(1, 15))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_home_answers_the_same_to_any_points_and_filters(
    homes: list[VectorStore], payloads: list[dict[str, object]], where: Where, seed: int, limit: int
) -> None:
    points = [Point(point_id(n), vector, payloads[n]) for n, vector in enumerate(vectors_of(len(payloads), seed=seed))]
    query = vectors_of(1, seed=seed ^ 1)[0]
    answers = []
    for home in homes:
        await home.delete(NAME, EVERYTHING)
        await home.upsert(NAME, points)
        hits = await home.query(NAME, query, where=where, limit=limit)
        answers.append(
            (
                [hit.id for hit in hits],
                [record.id for record in await scrolled(home, where)],
                await home.count(NAME, where=where),
                await home.facet(NAME, "labels", where=where, limit=2),
            )
        )
        np.testing.assert_allclose([hit.score for hit in hits], [cosines(points, query)[hit.id] for hit in hits], atol=1e-5)
    assert answers[0] == answers[1]
    assert answers[0][1] == [point.id for point in points if accepts(where, point.payload)]
