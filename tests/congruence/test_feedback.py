"""One contract over both homes of the feedback, and what several search services may rely on where they share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.errors import Conflict
from core.points import image_point_id
from core.ports import Point
from core.schemas import Space
from core.sql.place import DatabasePlace
from searchsvc.feedback import FeedbackHome, FeedbackStore, KeptRating, Rating, RecentSearch
from searchsvc.feedback_file import FileFeedback
from searchsvc.feedback_shared import SharedFeedback
from searchsvc.reranking import Reranking
from searchsvc.searches import RecentSearches
from tests.fakes import FakeVectorStore

DIM = 8
SPACE = Space(collection="clip", model_name="CLIP", dim=DIM, text=True)
VECTOR = np.linspace(-1, 1, 8, dtype=np.float32)
SEARCH = RecentSearch(VECTOR, ("a" * 64, "b" * 64), (0.5, 0.25), 11)


def _rating(number: int, image_id: str | None = "a" * 64) -> Rating:
    return Rating(
        jti=f"token {number}",
        rating=1 + number % 10,
        image_id=image_id,
        segment=None,
        search_id=f"search {number}",
        query={"text": "Füße\x01 %s ? :name"},
        model="clip",
        shown=["a" * 64, "b" * 64],
        model_name="CLIP",
        scores=[0.5, 0.25],
        first_rank=3,
        client="key-1",
        rotation=12.5,
        query_vector=VECTOR if image_id else None,
    )


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FeedbackStore]:
    home: FeedbackHome = (
        FileFeedback(tmp_path / "feedback.sqlite")
        if request.param == "sqlite"
        else SharedFeedback(request.getfixturevalue("database"))
    )
    async with FeedbackStore(home) as opened:
        yield opened


async def _all(store: FeedbackStore, after: int = 0, since: datetime | None = None) -> list[KeptRating]:
    return [kept async for page in store.pages(after=after, since=since) for kept in page]


async def test_a_rating_is_read_back_as_it_was_given(store: FeedbackStore) -> None:
    feedback_id = await store.add(_rating(1))
    await store.add(_rating(2, image_id=None))
    first, second = await _all(store)
    assert (first.feedback_id, first.sequence < second.sequence) == (feedback_id, True)
    assert second.rating.query_vector is None
    given, kept = _rating(1), first.rating
    assert kept.query_vector is not None
    assert kept.query_vector.dtype == np.float32
    assert np.array_equal(kept.query_vector, VECTOR)
    for name in (
        "jti",
        "rating",
        "image_id",
        "segment",
        "search_id",
        "query",
        "model",
        "shown",
        "scores",
        "first_rank",
        "client",
    ):
        assert getattr(kept, name) == getattr(given, name)
    assert (kept.model_name, kept.rotation) == ("CLIP", 12.5)
    assert abs(datetime.fromisoformat(first.created_at) - datetime.now(UTC)) < timedelta(seconds=30)


async def test_a_token_is_spent_once_and_the_second_try_leaves_nothing(store: FeedbackStore) -> None:
    await store.add(_rating(1))
    with pytest.raises(Conflict):
        await store.add(_rating(1))
    await store.add(_rating(2))
    assert [kept.rating.jti for kept in await _all(store)] == ["token 1", "token 2"]


async def test_pages_go_on_behind_a_rating_and_begin_at_a_time(store: FeedbackStore) -> None:
    for number in range(5):
        await store.add(_rating(number))
    kept = await _all(store)
    assert [one.rating.jti for one in await _all(store, after=kept[1].sequence)] == ["token 2", "token 3", "token 4"]
    assert len(await _all(store, since=datetime.fromisoformat(kept[3].created_at))) == 2
    assert await store.before_last(2) == kept[2].sequence
    assert await store.before_last(99) == 0


async def test_one_token_at_two_services_at_once_is_taken_by_one(database: DatabasePlace) -> None:
    async with FeedbackStore(SharedFeedback(database)) as one, FeedbackStore(SharedFeedback(database)) as other:
        for number in range(25):
            ends = await asyncio.gather(one.add(_rating(number)), other.add(_rating(number)), return_exceptions=True)
            assert sorted(type(end) for end in ends if isinstance(end, BaseException)) == [Conflict]
        assert len(await _all(one)) == 25


async def test_whoever_reads_on_behind_the_last_rating_misses_none_of_many_writers(database: DatabasePlace) -> None:
    """Numbers that are given in one order and become visible in another would be passed over by a reader between the two."""
    async with FeedbackStore(SharedFeedback(database)) as one, FeedbackStore(SharedFeedback(database)) as other:
        heard: list[str] = []
        last, done = 0, False

        async def read() -> None:
            nonlocal last
            while True:
                ended = done
                async for page in other.pages(after=last):
                    heard.extend(kept.rating.jti for kept in page)
                    last = page[-1].sequence
                if ended:
                    return

        reading = asyncio.create_task(read())
        await asyncio.gather(*(store.add(_rating(n)) for n, store in enumerate([one, other] * 150)))
        done = True
        await reading
        assert sorted(heard) == sorted(f"token {n}" for n in range(300))


async def test_a_search_that_one_service_answered_is_known_to_another_that_is_asked_to_rate_it(database: DatabasePlace) -> None:
    async with (
        FeedbackStore(SharedFeedback(database)) as one,
        FeedbackStore(SharedFeedback(database)) as other,
        RecentSearches(one) as answering,
        RecentSearches(other) as rating,
    ):
        answering.remember("s1", SEARCH)
        assert await answering.recall("s1") is SEARCH
        async with asyncio.timeout(10):
            while (found := await rating.recall("s1")) is None:
                await asyncio.sleep(0.02)
        assert np.array_equal(found.vector, VECTOR)
        assert (list(found.shown), list(found.scores), found.first_rank) == (list(SEARCH.shown), [0.5, 0.25], 11)
        assert await rating.recall("s2") is None


async def test_of_searches_the_newest_are_kept(database: DatabasePlace) -> None:
    async with FeedbackStore(SharedFeedback(database)) as store:
        await store.remember({f"s{n}": SEARCH for n in range(10)})
        await store.forget_searches(3)
        assert [n for n in range(10) if await store.recall(f"s{n}") is not None] == [7, 8, 9]


async def test_what_was_rated_at_one_service_turns_the_queries_of_another(database: DatabasePlace) -> None:
    vectors, image_id, query = FakeVectorStore(), "a" * 64, np.eye(DIM, dtype=np.float32)[0]
    await vectors.ensure(SPACE)
    payload = {"image_id": image_id, "kind": "image"}
    await vectors.upsert(SPACE.collection, [Point(image_point_id(image_id), np.eye(DIM, dtype=np.float32)[1], payload)])
    async with (
        FeedbackStore(SharedFeedback(database)) as one,
        FeedbackStore(SharedFeedback(database)) as other,
        Reranking("on", store=other, vectors=vectors, follow_every_s=0.02) as reranking,
    ):
        for number in range(3):  # before it has caught up, and after
            rating = replace(_rating(number), model=SPACE.collection, shown=[image_id], scores=[], query_vector=query)
            await one.add(replace(rating, client=f"key-{number}"))
            async with asyncio.timeout(10):
                while (turned := await reranking.turn(SPACE.collection, query)) is None or turned.judgements <= number:
                    await asyncio.sleep(0.01)
