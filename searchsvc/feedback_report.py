"""How good the results are, by what people say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, stdev
from typing import Any

from searchsvc.feedback import KeptRating, Rating
from searchsvc.feedback_views import FeedbackReport, ImageReport, Mean, ModelReport, QueryReport
from searchsvc.topics import JudgedPool, ndcg_at_10, topic_of

_LISTED = 10
_NORMAL_95 = 1.96


@dataclass(slots=True)
class _Search:
    """What is known of one search from its ratings: images by rank."""

    topic: str
    model: str
    ranks: dict[int, str] = field(default_factory=dict)

    @property
    def shown(self) -> list[str]:
        return [self.ranks[rank] for rank in sorted(self.ranks)]


@dataclass(slots=True)
class _Heard:
    """Ratings of one model, or of all."""

    name: str | None = None
    searches: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def add(self, rating: Rating) -> None:
        self.name = rating.model_name or self.name
        (self.searches if rating.image_id is None else self.images).append(rating.rating)


class ReportBuilder:
    """Takes ratings in the order in which they came."""

    def __init__(self) -> None:
        self._pool = JudgedPool()
        self._all = _Heard()
        self._by_model: defaultdict[str, _Heard] = defaultdict(_Heard)
        self._by_topic: defaultdict[str, list[int]] = defaultdict(list)
        self._by_image: defaultdict[str, list[int]] = defaultdict(list)
        self._asked: dict[str, Mapping[str, Any]] = {}
        self._searches: dict[str, _Search] = {}
        self._clients: set[str] = set()
        self._times: list[str] = []

    def add(self, kept: KeptRating) -> None:
        rating, topic = kept.rating, topic_of(kept.rating)
        self._pool.add(kept)
        self._all.add(rating)
        self._by_model[rating.model].add(rating)
        self._by_topic[topic].append(rating.rating)
        self._asked.setdefault(topic, rating.query)
        if rating.image_id is not None:
            self._by_image[rating.image_id].append(rating.rating)
        if rating.client is not None:
            self._clients.add(rating.client)
        search = self._searches.setdefault(rating.search_id, _Search(topic, rating.model))
        search.ranks.update(enumerate(rating.shown, start=rating.first_rank))
        self._times = [*self._times[:1], kept.created_at]

    def report(self) -> FeedbackReport:
        ndcg = self._ndcg()
        by_topic, by_model = _grouped(ndcg, lambda search: search.topic), _grouped(ndcg, lambda search: search.model)
        queries = [self._query(topic, by_topic.get(topic)) for topic in self._by_topic]
        images = [ImageReport(image_id=key, ratings=len(of), mean_rating=fmean(of)) for key, of in self._by_image.items()]
        return FeedbackReport(
            ratings=len(self._all.searches) + len(self._all.images),
            clients=len(self._clients),
            queries=len(queries),
            first_at=datetime.fromisoformat(self._times[0]) if self._times else None,
            last_at=datetime.fromisoformat(self._times[-1]) if self._times else None,
            searches=_mean(self._all.searches),
            images=_mean(self._all.images),
            ndcg_at_10=_mean([value for _, value in ndcg]),
            models=tuple(
                ModelReport(
                    collection=collection,
                    model_name=heard.name,
                    searches=_mean(heard.searches),
                    images=_mean(heard.images),
                    ndcg_at_10=_mean(by_model.get(collection, [])),
                )
                for collection, heard in self._by_model.items()
            ),
            worst_queries=tuple(sorted(queries, key=lambda query: (query.mean_rating, -query.ratings))[:_LISTED]),
            most_rated_queries=tuple(sorted(queries, key=lambda query: -query.ratings)[:_LISTED]),
            most_rated_images=tuple(sorted(images, key=lambda image: -image.ratings)[:_LISTED]),
        )

    def _ndcg(self) -> list[tuple[_Search, float]]:
        grades = {topic: self._pool.grades(topic) for topic in self._by_topic}
        from_the_top = (search for search in self._searches.values() if 1 in search.ranks)
        scored = ((search, ndcg_at_10(search.shown, grades[search.topic])) for search in from_the_top)
        return [(search, value) for search, value in scored if value is not None]

    def _query(self, topic: str, ndcg: Sequence[float] | None) -> QueryReport:
        ratings = self._by_topic[topic]
        return QueryReport(
            topic=topic,
            asked=dict(self._asked[topic]),
            ratings=len(ratings),
            mean_rating=fmean(ratings),
            ndcg_at_10=fmean(ndcg) if ndcg else None,
        )


def _grouped(ndcg: Iterable[tuple[_Search, float]], key: Callable[[_Search], str]) -> dict[str, list[float]]:
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for search, value in ndcg:
        groups[key(search)].append(value)
    return dict(groups)


def _mean(values: Sequence[float]) -> Mean | None:
    if not values:
        return None
    mean = fmean(values)
    half = _NORMAL_95 * stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return Mean(
        mean=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        of=len(values),
    )
