"""What the watcher counts of the queue."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class QueueMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._sent = Counter("queue_tasks_sent_total", "Tasks that the broker took", registry=registry)
        self._lost = Counter(
            "queue_tasks_lost_total", "Tasks that the broker had and lost: they are sent again", registry=registry
        )
        self._waiting = Gauge("queue_tasks_waiting", "Tasks in the broker that no worker has yet", registry=registry)

    def note_sent(self, count: int) -> None:
        self._sent.inc(count)

    def note_lost(self, count: int) -> None:
        self._lost.inc(count)

    def note_waiting(self, count: int) -> None:
        self._waiting.set(count)
