"""Feedback at work: what was rated turns the queries that come after it (`searchsvc.relevance`)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self, TypeVar

import structlog

from core.errors import Unavailable
from core.points import image_point_id, segment_point_id
from core.ports import VectorStore
from core.schemas import Vector
from searchsvc.clients import is_known
from searchsvc.feedback import FeedbackStore, Rating, RecentSearch
from searchsvc.relevance import Judgement, Judgements, Turned, direction
from searchsvc.searches import RecentSearches
from searchsvc.topics import topic_of

log = structlog.get_logger()

_ResultT = TypeVar("_ResultT")

WhoseRatings = Literal["off", "known", "on"]

_CAPACITY = 8192
"""Judgements held a space, the newest: with their queries, 34 MiB at 512 numbers; turning a query by all of them takes 60 ms, off the loop."""

_FETCHED_AT_ONCE = 32
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_FOLLOW_EVERY_S = 2.0
"""How long ratings that other services took may go unheard."""


class Reranking:
    """An async context manager. Learns what was rated before in the background, and each rating as it comes; those that other services
    took within `follow_every_s`."""

    def __init__(
        self,
        whose: WhoseRatings,
        *,
        store: FeedbackStore,
        vectors: VectorStore,
        first_pause_s: float = _FIRST_PAUSE_S,
        follow_every_s: float = _FOLLOW_EVERY_S,
    ) -> None:
        self._whose = whose
        self._store = store
        self._vectors = vectors
        self._first_pause_s = first_pause_s
        self._follow_every_s = follow_every_s
        self._spaces: dict[str, Judgements] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback-reranking")
        self._recent = RecentSearches(store)
        self._waiting: deque[Rating] = deque(maxlen=_CAPACITY)
        self._loaded = whose == "off"
        self._loading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._recent.__aenter__()
        if self._whose != "off":
            self._loading = asyncio.create_task(self._load(), name="feedback-loading")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError):
                await self._loading
        await self._recent.__aexit__(kind, error, trace)
        self._thread.shutdown(wait=False)

    def remember(self, search_id: str, search: RecentSearch) -> None:
        """Keep for ratings to come; the oldest search is forgotten for it."""
        self._recent.remember(search_id, search)

    async def recall(self, search_id: str) -> RecentSearch | None:
        """Raises nothing: a search that cannot be had is one that was forgotten."""
        return await self._recent.recall(search_id)

    async def turn(self, collection: str, query: Vector) -> Turned | None:
        """The query as feedback has it; None where nothing near it was rated."""
        judgements = self._spaces.get(collection)
        if judgements is None:
            return None
        turned = await self._on_thread(lambda: judgements.turn(query))
        return turned if turned.judgements else None

    async def learn(self, rating: Rating) -> None:
        """Let a stored rating count from now on. Never raises: what cannot be learned now is learned at the next start."""
        if not self._counts(rating):
            return
        if not self._loaded:
            self._waiting.append(rating)
            return
        await self._learn_one(rating)

    async def _learn_one(self, rating: Rating) -> None:
        try:
            await self._learn([rating])
        except Unavailable as error:
            log.warning("feedback_not_learned", error=str(error))
        except Exception:  # a fault of ours: the rating is stored, and whoever gave it is to hear so
            log.critical("feedback_learning_failed", exc_info=True)

    def _counts(self, rating: Rating) -> bool:
        """Ratings of a whole search say nothing of which picture, and without the query's vector nothing of which query."""
        if rating.image_id is None or rating.query_vector is None or rating.client is None:
            return False
        return self._whose == "on" or (self._whose == "known" and is_known(rating.client))

    async def _load(self) -> None:
        after = await self._caught_up(await self._from_where())
        while self._waiting:
            await self._learn_one(self._waiting.popleft())
        self._loaded = True
        level = log.info if self._spaces else log.debug
        level("feedback_loaded", judgements={collection: len(held) for collection, held in self._spaces.items()})
        while self._store.is_shared:  # a judgement that was heard already is the same judgement again
            await asyncio.sleep(self._follow_every_s)
            after = await self._caught_up(after)

    async def _caught_up(self, after: int) -> int:
        """All that was rated behind this one. Returns the last."""
        pause_s = self._first_pause_s
        while True:
            try:
                async for page in self._store.pages(after=after):
                    for start in range(0, len(page), _FETCHED_AT_ONCE):
                        part = page[start : start + _FETCHED_AT_ONCE]
                        await self._learn([kept.rating for kept in part])
                        after = part[-1].sequence
            except Unavailable as error:
                log.warning("feedback_loading_waits", error=str(error), retry_in_s=pause_s)
            except Exception:  # a fault of ours, which may pass
                log.critical("feedback_loading_failed", retry_in_s=pause_s, exc_info=True)
            else:
                return after
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _from_where(self) -> int:
        try:
            return await self._store.before_last(_CAPACITY)
        except Unavailable:
            return 0

    async def _learn(self, ratings: Iterable[Rating]) -> None:
        """In order. A picture that is no longer there is passed over."""
        counting = [rating for rating in ratings if self._counts(rating)]
        for collection in dict.fromkeys(rating.model for rating in counting):
            of_it = [rating for rating in counting if rating.model == collection]
            ids = dict.fromkeys(point for rating in of_it for point in (_rated_point(rating), *map(image_point_id, rating.shown)))
            records = await self._vectors.retrieve(collection, list(ids), with_vectors=True)
            stored = {record.id: record.vector for record in records if record.vector is not None}
            judged = [judgement for rating in of_it if (judgement := _judgement(rating, stored)) is not None]
            if judged:
                held = self._spaces.setdefault(collection, Judgements(len(judged[0].query), _CAPACITY))
                await self._on_thread(lambda held=held, judged=judged: _add_all(held, judged))  # type: ignore[misc]

    async def _on_thread(self, work: Callable[[], _ResultT]) -> _ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _add_all(held: Judgements, judged: Iterable[Judgement]) -> None:
    for judgement in judged:
        held.add(judgement)


def _rated_point(rating: Rating) -> str:
    image_id = rating.image_id or ""
    return image_point_id(image_id) if rating.segment is None else segment_point_id(image_id, rating.segment)


def _judgement(rating: Rating, stored: Mapping[str, Vector]) -> Judgement | None:
    rated = stored.get(_rated_point(rating))
    query, client, image_id = rating.query_vector, rating.client, rating.image_id
    if rated is None or query is None or client is None or image_id is None or rated.shape != query.shape:
        return None
    shown = [stored[point] for point in map(image_point_id, rating.shown) if point in stored]
    picture = image_id if rating.segment is None else f"{image_id}/{rating.segment}"
    return Judgement(client, topic_of(rating), query, picture, rating.rating, direction(rated, shown))
