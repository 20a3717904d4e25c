"""What the watcher counts: ingestion, and the index that it writes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import AbstractContextManager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.errors import Reason, Unavailable
from core.metrics import SHORT_S
from core.ports import VectorStore
from core.schemas import ImageState, IngestionStatus

Stage = Literal["adopt", "read", "analyse", "write"]

_WINDOW_S = 60.0
_SEARCHABLE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 1800, 7200)
_PATIENCE_S = 3.0
"""For the sizes of the index: whoever scrapes has little more."""


class IngestionMetrics:
    """Counters of ingestion, and its rate over the last minute of work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._indexed = Counter("ingestion_indexed_total", "Images that became searchable", ("how",), registry=registry)
        self._failed = Counter("ingestion_failures_total", "Files that ended failed or refused", ("reason",), registry=registry)
        self._stages = Histogram(
            "ingestion_stage_seconds", "Time of one image in a stage", ("stage",), buckets=SHORT_S, registry=registry
        )
        self._searchable = Histogram(
            "ingestion_time_to_searchable_seconds",
            "From the first sight of a file to its being searchable",
            buckets=_SEARCHABLE_BUCKETS,
            registry=registry,
        )
        self._ended: deque[float] = deque()
        for how in ("analysed", "adopted"):
            self._indexed.labels(how)
        for reason in Reason:
            if reason is not Reason.IGNORED:
                self._failed.labels(reason.value)

    def stage(self, name: Stage) -> AbstractContextManager[object]:
        """Measures what is done within."""
        return self._stages.labels(name).time()

    def note_indexed(self, *, adopted: bool, seconds_since_noticed: float | None) -> None:
        """`seconds_since_noticed` is None for an image that was searchable before."""
        self._indexed.labels("adopted" if adopted else "analysed").inc()
        if seconds_since_noticed is not None:
            self._searchable.observe(max(0.0, seconds_since_noticed))
        self._ended.append(time.monotonic())

    def note_failed(self, reason: Reason) -> None:
        """A file that is left alone because it is no picture has not failed."""
        if reason is not Reason.IGNORED:
            self._failed.labels(reason.value).inc()

    def rate_per_s(self) -> float:
        now = time.monotonic()
        while self._ended and self._ended[0] < now - _WINDOW_S:
            self._ended.popleft()
        return len(self._ended) / max(1.0, now - self._ended[0]) if self._ended else 0.0

    def note_taken_elsewhere(self, count: int) -> None:
        """Other processes took so many on: as fast as that they end."""
        self._ended.extend([time.monotonic()] * count)


class StatusMetrics:
    """What the ledger says of all images, and the watcher of itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._images = Gauge("ingestion_images", "Images by state", ("state",), registry=registry)
        self._segments = Gauge("ingestion_segments", "Segments of all indexed images", registry=registry)
        self._settling = Gauge("ingestion_settling_files", "Files that may still be written to", registry=registry)
        self._queue_age = Gauge("ingestion_queue_age_seconds", "Age of the oldest pending image", registry=registry)
        self._paused = Gauge("ingestion_paused", "1 while ingestion waits for something that is away", registry=registry)
        self._watch = Gauge("ingestion_watch", "1 on the process that notices, 0 on those that stand by", registry=registry)
        self._missing = Gauge("ingestion_folder_missing", "1 while the watched folder is not there", registry=registry)
        self._reconciled = Gauge(
            "ingestion_last_reconcile_timestamp_seconds", "When folder and ledger were last compared", registry=registry
        )
        self._change = Gauge(
            "ingestion_model_change_images",
            "Images by how far a change of models is with them; both 0 while there is none",
            ("state",),
            registry=registry,
        )
        self._change_stopped = Gauge(
            "ingestion_model_change_stopped", "1 while a change of models stands still", registry=registry
        )

    def show(self, status: IngestionStatus, oldest_pending_s: float) -> None:
        """Set the gauges, just before they are read."""
        counts = status.images.model_dump()
        for state in ImageState:
            self._images.labels(state.value).set(counts[state.value])
        change = status.model_change
        self._change.labels("settled").set(change.done if change else 0)
        self._change.labels("waiting").set(change.total - change.done if change else 0)
        self._change_stopped.set(change.stopped if change else 0)
        watcher = status.watcher
        self._segments.set(status.segments)
        self._settling.set(watcher.settling)
        self._queue_age.set(oldest_pending_s)
        self._paused.set(watcher.waiting_for is not None)
        self._watch.set(watcher.state != "standby")
        self._missing.set(watcher.state == "folder_missing")
        self._reconciled.set(watcher.last_reconcile_at.timestamp() if watcher.last_reconcile_at else 0.0)


class IndexMetrics:
    """How large the index is. Told by the watcher alone, because every searcher sees the same one."""

    def __init__(self, registry: CollectorRegistry, vectors: VectorStore) -> None:
        self._vectors = vectors
        self._points = Gauge("index_points", "Points by collection", ("collection",), registry=registry)
        self._bytes = Gauge(
            "index_disk_bytes", "Bytes on the disk by collection, where Qdrant is embedded", ("collection",), registry=registry
        )

    async def look(self) -> None:
        """Set the gauges, just before they are read. While the vectors do not answer there are none."""
        self._points.clear()
        self._bytes.clear()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                sizes = await self._vectors.sizes()
        except (Unavailable, TimeoutError):
            return
        for size in sizes:
            self._points.labels(size.collection).set(size.points)
            if size.disk_bytes is not None:
                self._bytes.labels(size.collection).set(size.disk_bytes)
