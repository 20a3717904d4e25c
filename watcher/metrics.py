"""What the watcher counts."""

from __future__ import annotations

import time
from collections import deque

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.errors import Reason
from core.schemas import ImageState, IngestionStatus

_WINDOW_S = 60.0
_SEARCHABLE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 1800, 7200)


class IngestionMetrics:
    """Counters of ingestion, and its rate over the last minute of work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._images = Gauge("ingestion_images", "Images by state", ("state",), registry=registry)
        self._segments = Gauge("ingestion_segments", "Segments of all indexed images", registry=registry)
        self._rate = Gauge(
            "ingestion_rate_per_second", "Images indexed a second, over the last minute of work", registry=registry
        )
        self._queue_age = Gauge("ingestion_queue_age_seconds", "Age of the oldest pending image", registry=registry)
        self._failed = Counter("ingestion_failures_total", "Images that ended failed", ("reason",), registry=registry)
        self._searchable = Histogram(
            "ingestion_time_to_searchable_seconds",
            "From the first sight of a file to its being searchable",
            buckets=_SEARCHABLE_BUCKETS,
            registry=registry,
        )
        self._ended: deque[float] = deque()

    def note_indexed(self, seconds_since_noticed: float) -> None:
        self._searchable.observe(max(0.0, seconds_since_noticed))
        self._ended.append(time.monotonic())

    def note_failed(self, reason: Reason) -> None:
        self._failed.labels(reason.value).inc()

    def rate_per_s(self) -> float:
        now = time.monotonic()
        while self._ended and self._ended[0] < now - _WINDOW_S:
            self._ended.popleft()
        return len(self._ended) / max(1.0, now - self._ended[0]) if self._ended else 0.0

    def show(self, status: IngestionStatus, oldest_pending_s: float) -> None:
        """Set the gauges, just before they are read."""
        counts = status.images.model_dump()
        for state in ImageState:
            self._images.labels(state.value).set(counts[state.value])
        self._segments.set(status.segments)
        self._rate.set(status.rate_per_s)
        self._queue_age.set(oldest_pending_s)
