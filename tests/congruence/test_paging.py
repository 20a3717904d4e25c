"""Pages on both homes of the vectors while pictures come and go: what stays is shown once each, in order, and nothing twice."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from core.points import points_by_collection
from core.ports import Match, VectorStore, Where
from core.schemas import AnalysedSegment, Embedding, ImageAnalysis, MaskRle, Space, Vector
from core.vectors.edge import EdgeStore
from core.vectors.server import ServerStore
from searchsvc.cursors import Continuation, Cursors
from searchsvc.keys import Key, KeyRing
from searchsvc.paging import Pager, Shown
from searchsvc.question import Question
from searchsvc.ranking import NOISE, Ranking, fused
from searchsvc.search_schema import Scope
from tests.ram import ram_folder

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

SPACE = Space(collection="clip", model_name="CLIP", dim=4, text=True)
MASK = MaskRle(size=(1, 1), counts="0")
AT = datetime(2024, 5, 1, tzinfo=UTC)
CURSORS = Cursors(KeyRing([Key(None, b"a key for tests")]), ttl_s=60)


@pytest.fixture(params=["edge", "memory"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[VectorStore]:
    async with AsyncExitStack() as stack:
        opened: Any = (
            EdgeStore(stack.enter_context(ram_folder()) / "vectors")
            if request.param == "edge"
            else ServerStore("http://unused", client=AsyncQdrantClient(":memory:"))
        )
        yield await stack.enter_async_context(opened)


class Album:
    """Pictures with up to three regions, of few different vectors, so that many have the same score."""

    def __init__(self, store: VectorStore, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.vectors: dict[str, list[Vector]] = {}

    def _vector(self) -> Vector:
        vector = np.array([self.random.randint(-1, 2) for _ in range(SPACE.dim)], np.float32)
        return vector / np.linalg.norm(vector) if vector.any() else np.full(SPACE.dim, 0.5, np.float32)

    async def add(self, count: int) -> None:
        points = []
        for _ in range(count):
            image_id = f"{self.random.getrandbits(256):064x}"
            self.vectors[image_id] = vectors = [self._vector() for _ in range(1 + self.random.randint(0, 3))]
            embeddings = [(Embedding(collection=SPACE.collection, vector=vector),) for vector in vectors]
            segments = tuple(
                AnalysedSegment(n=n, label="x", score=0.5, bbox=(0, 0, 1, 1), area=0.5, mask=MASK, embeddings=embedding)
                for n, embedding in enumerate(embeddings[1:])
            )
            analysis = ImageAnalysis(
                content_hash=image_id,
                width=4,
                height=3,
                format="PNG",
                fingerprint="f",
                embeddings=embeddings[0],
                segments=segments,
            )
            points += points_by_collection(analysis, paths=(f"{image_id[:8]}.png",), size_bytes=1, file_time=AT)[SPACE.collection]
        await self.store.upsert(SPACE.collection, points)

    async def remove(self, count: int) -> set[str]:
        gone = set(self.random.sample(sorted(self.vectors), min(count, len(self.vectors))))
        if gone:
            await self.store.delete(SPACE.collection, Where(must=(Match("image_id", tuple(sorted(gone))),)))
        for image_id in gone:
            del self.vectors[image_id]
        return gone

    def score(self, query: Vector, image_id: str, scope: Scope) -> float:
        whole, *regions = (float(vector @ query) for vector in self.vectors[image_id])
        return fused(whole, max(regions)) if scope == "both" and regions else whole


def question(query: Vector, scope: Scope, *, collapse: bool = False, diversity: float = 0) -> Question:
    return Question(
        space=SPACE,
        told={"text": "x"},
        vector=query,
        terms=(),
        scope=scope,
        filter=None,
        left_out=(),
        min_score=None,
        collapse=collapse,
        diversity=diversity,
        explain=False,
    )


async def all_pages(album: Album, asked: Question, *, top_k: int, turnover: int) -> tuple[list[Shown], set[str], set[str]]:
    """What was shown; and of the images that were there in the beginning, those that stayed, and those that went."""
    pager = Pager(Ranking(album.store), near_duplicate=0.97)
    first, gone, shown = set(album.vectors), set[str](), list[Shown]()
    going: Continuation | None = Continuation(question=asked, top_k=top_k)
    while going is not None:
        page = await pager.page(going)
        assert page.first_rank == len(shown) + 1
        shown += page.matches
        going = CURSORS.read(CURSORS.write(page.further)) if page.further else None
        await album.add(album.random.randint(0, turnover))
        gone |= await album.remove(album.random.randint(0, turnover))
        assert len(shown) < 2000, "the pages do not end"
    return shown, first - gone, first & gone


@pytest.mark.parametrize("scope", ["images", "segments", "both"])
@pytest.mark.parametrize("turnover", [0, 2, 20])
async def test_what_stays_is_shown_once_and_in_order_while_others_come_and_go(
    store: VectorStore, scope: Scope, turnover: int
) -> None:
    await store.ensure(SPACE)
    for seed, top_k in ((0, 3), (1, 11)):
        album = Album(store, seed)
        await album.add(60)
        query = np.array([0.8, 0.6, 0, 0], np.float32)
        shown, stayed, _ = await all_pages(album, question(query, scope), top_k=top_k, turnover=turnover)
        keys = [one.ranked.key for one in shown]
        assert len(keys) == len(set(keys)), "a match came twice"
        scores = np.array([one.ranked.score for one in shown])
        assert np.all(np.diff(scores) <= NOISE)
        images = [one.ranked.hit.payload["image_id"] for one in shown]
        for image_id in stayed:
            times = len(album.vectors[image_id]) - 1 if scope == "segments" else 1
            assert images.count(image_id) == times, "a match was passed over"
        if scope != "segments":
            for one in shown:
                if (image_id := one.ranked.hit.payload["image_id"]) in stayed:
                    assert one.ranked.score == pytest.approx(album.score(query, image_id, scope), abs=1e-5)
        await album.remove(len(album.vectors))


@pytest.mark.parametrize("scope", ["images", "both"])
async def test_collapsed_and_varied_pages_keep_what_stays(store: VectorStore, scope: Scope) -> None:
    """Each image that stays is shown, or named by one that stands for it."""
    album = Album(store, 7)
    await store.ensure(SPACE)
    await album.add(120)
    query = np.array([0.8, 0.6, 0, 0], np.float32)
    asked = question(query, scope, collapse=True, diversity=0.5)
    shown, stayed, _ = await all_pages(album, asked, top_k=9, turnover=0)
    keys = [one.ranked.key for one in shown]
    assert len(keys) == len(set(keys)) < 120
    told = {one.ranked.hit.payload["image_id"] for one in shown} | {name for one in shown for name in one.near_duplicates}
    assert told == stayed
    shown, *_ = await all_pages(album, asked, top_k=9, turnover=5)
    keys = [one.ranked.key for one in shown]
    assert len(keys) == len(set(keys)), "a match came twice"


async def test_a_varied_answer_ends_with_its_pool_and_newcomers_push_nothing_out_of_it(store: VectorStore) -> None:
    album = Album(store, 3)
    await store.ensure(SPACE)
    await album.add(260)
    query = np.array([0.8, 0.6, 0, 0], np.float32)
    asked = question(query, "images", diversity=0.25)
    plain, _ = await Ranking(store).behind(asked, None, 200)
    pager = Pager(Ranking(store), near_duplicate=0.97)
    page = await pager.page(Continuation(question=asked, top_k=50))
    shown = [one.ranked.key for one in page.matches]
    await album.add(100)
    while page.further is not None:
        page = await pager.page(page.further)
        shown += [one.ranked.key for one in page.matches]
    assert len(shown) == len(set(shown))
    assert {one.key for one in plain} <= set(shown)


async def test_skipping_by_number_gives_the_same_as_paging_where_nothing_changes(store: VectorStore) -> None:
    album = Album(store, 5)
    await store.ensure(SPACE)
    await album.add(40)
    pager = Pager(Ranking(store), near_duplicate=0.97)
    for scope in ("images", "both"):
        asked = question(np.array([0.6, 0, 0.8, 0], np.float32), scope)
        whole = await pager.page(Continuation(question=asked, top_k=40))
        later = await pager.page(Continuation(question=asked, top_k=10), skip=13)
        scores = [one.ranked.score for one in whole.matches]
        assert [one.ranked.score for one in later.matches] == pytest.approx(scores[13:23], abs=NOISE)
        assert later.first_rank == 14
        assert later.further is not None
        assert later.further.place is not None
        assert later.further.place.rank == 23


@pytest.mark.parametrize("scope", ["images", "segments", "both"])
async def test_the_least_score_that_is_asked_for_belongs_to_the_answer(store: VectorStore, scope: Scope) -> None:
    album = Album(store, 11)
    await store.ensure(SPACE)
    await album.add(40)
    asked = question(np.array([0.8, 0.6, 0, 0], np.float32), scope)
    whole, _ = await Ranking(store).behind(asked, None, 200)
    for last in whole[:: len(whole) // 10]:
        found, _ = await Ranking(store).behind(asked.model_copy(update={"min_score": last.score}), None, 200)
        assert [one.key for one in found] == [one.key for one in whole if one.score >= last.score]
