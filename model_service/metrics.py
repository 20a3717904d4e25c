"""What the operator sees of inference."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.metrics import SHORT_S, decoder_deaths
from core.schemas import Priority

_SATURATION_WINDOW_S = 15.0
_BATCH = (1, 2, 4, 8, 16, 32, 64)


class BusyTime:
    """The share of the last seconds in which anything was computed; what ran at the same time counts once."""

    def __init__(self, *, window_s: float = _SATURATION_WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._spans: deque[tuple[float, float]] = deque()
        self._since = clock()

    def note(self, duration_s: float) -> None:
        """Something that took so long ended now."""
        now = self._clock()
        begun = max(now - duration_s, self._spans[-1][1] if self._spans else self._since)
        self._spans.append((begun, now))
        self._forget(now)

    def share(self) -> float:
        now = self._clock()
        self._forget(now)
        since = now - self._window_s
        return min(1.0, sum(ended - max(begun, since) for begun, ended in self._spans) / self._window_s)

    def _forget(self, now: float) -> None:
        while self._spans and self._spans[0][1] <= now - self._window_s:
            self._spans.popleft()


class InferenceMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._busy = BusyTime()
        Gauge(
            "model_saturation", "Share of the last 15 seconds in which the models computed: 1 is all there is", registry=registry
        ).set_function(self._busy.share)
        self._seconds = Histogram(
            "model_inference_seconds", "Time of one forward pass, whole batch", ("model",), buckets=SHORT_S, registry=registry
        )
        self._batch = Histogram("model_batch_size", "Inputs in one forward pass", ("model",), buckets=_BATCH, registry=registry)
        self._failed = Counter("model_inference_failures_total", "Inputs that a model failed on", ("model",), registry=registry)
        self._depth = Gauge("model_queue_depth", "Inputs that wait for a forward pass", ("priority",), registry=registry)
        self._age = Gauge("model_queue_age_seconds", "Age of the oldest input that waits", ("priority",), registry=registry)
        self._waited = Histogram(
            "model_queue_wait_seconds", "Time of an input in the queue", ("priority",), buckets=SHORT_S, registry=registry
        )
        self.decoding = Histogram(
            "model_decode_seconds", "Time to decode and prepare one picture", buckets=SHORT_S, registry=registry
        )
        self.decoder_deaths = decoder_deaths(registry)
        self.in_flight = Gauge(
            "model_requests_in_flight", "Requests admitted and not yet answered", ("priority",), registry=registry
        )
        self.refused = Counter(
            "model_requests_refused_total", "Requests refused because too many wait", ("priority",), registry=registry
        )
        self.ready = Gauge("model_ready", "1 when the models are loaded", registry=registry)
        for priority in Priority:
            self.in_flight.labels(priority)
            self.refused.labels(priority)

    def follow_queue(self, priority: Priority, *, depth: Callable[[], float], age_s: Callable[[], float]) -> None:
        """Both are asked on the event loop, whenever the metrics are read."""
        self._depth.labels(priority).set_function(depth)
        self._age.labels(priority).set_function(age_s)

    def observe_wait(self, priority: Priority, waited_s: float) -> None:
        self._waited.labels(priority).observe(waited_s)

    def observe_batch(self, model: str, size: int, duration_s: float, *, failed: int) -> None:
        self._busy.note(duration_s)
        self._seconds.labels(model).observe(duration_s)
        self._batch.labels(model).observe(size)
        self._failed.labels(model).inc(failed)
