"""What the search service counts beside its requests."""

from __future__ import annotations

import time
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

from core.metrics import SHORT_S, decoder_deaths

Cache = Literal["text_embeddings", "thumbnails"]
_CACHES: tuple[Cache, ...] = ("text_embeddings", "thumbnails")
_RATINGS = tuple(float(rating) for rating in range(1, 11))


class SearchMetrics:
    """How long each part of a search takes, what the caches save, and what people think of it. May be called from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "search_stage_seconds", "Time of a search by stage", ("stage",), buckets=SHORT_S, registry=registry
        )
        self._lookups = Counter("cache_lookups_total", "What was looked for in a cache", ("cache", "result"), registry=registry)
        self._ratings = Histogram(
            "feedback_rating", "Ratings that were stored, 1 to 10", ("about",), buckets=_RATINGS, registry=registry
        )
        self.decoder_deaths = decoder_deaths(registry)
        for cache in _CACHES:
            self._lookups.labels(cache, "hit")
            self._lookups.labels(cache, "miss")

    def observe(self, stage: str, started: float) -> float:
        """Count the time since `started` to `stage`; returns now, the start of the next."""
        now = time.perf_counter()
        self._seconds.labels(stage).observe(now - started)
        return now

    def note_lookup(self, cache: Cache, *, hit: bool) -> None:
        self._lookups.labels(cache, "hit" if hit else "miss").inc()

    def note_rating(self, rating: int, *, of_image: bool) -> None:
        self._ratings.labels("image" if of_image else "search").observe(rating)
