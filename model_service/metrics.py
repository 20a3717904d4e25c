"""What Prometheus reads of the models: batches, queues, requests."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.schemas import Priority


class ModelMetrics:
    """The engine's observer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ready = Gauge("model_ready", "1 once the models answer", registry=registry)
        self._depth = Gauge("model_queue_depth", "Inputs that wait", ["model"], registry=registry)
        self._in_flight = Gauge("model_requests_in_flight", "Pictures admitted", ["priority"], registry=registry)
        self._refused = Counter(
            "model_requests_refused_total", "Pictures refused since too many wait", ["priority"], registry=registry
        )
        self._seconds = Histogram("model_inference_seconds", "Time of one batch", ["model"], registry=registry)
        self._sizes = Histogram(
            "model_batch_size", "Inputs of one batch", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        for priority in Priority:
            self._in_flight.labels(priority.value)
            self._refused.labels(priority.value)

    def became_ready(self) -> None:
        self._ready.set(1)

    def batch_ran(self, name: str, size: int, duration_s: float) -> None:
        self._seconds.labels(name).observe(duration_s)
        self._sizes.labels(name).observe(size)

    def queue_changed(self, name: str, depth: int) -> None:
        self._depth.labels(name).set(depth)

    def request_admitted(self, priority: Priority) -> None:
        self._in_flight.labels(priority.value).inc()

    def request_left(self, priority: Priority) -> None:
        self._in_flight.labels(priority.value).dec()

    def request_refused(self, priority: Priority) -> None:
        self._refused.labels(priority.value).inc()
