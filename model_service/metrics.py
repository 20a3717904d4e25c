"""What the operator sees of inference."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH = (1, 2, 4, 8, 16, 32, 64)


class InferenceMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "model_inference_seconds", "Time of one forward pass, whole batch", ("model",), buckets=_SECONDS, registry=registry
        )
        self._batch = Histogram("model_batch_size", "Inputs in one forward pass", ("model",), buckets=_BATCH, registry=registry)
        self.waiting = Gauge("model_queue_depth", "Inputs that wait for inference", registry=registry)
        self.in_flight = Gauge(
            "model_requests_in_flight", "Requests admitted and not yet answered", ("priority",), registry=registry
        )
        self.refused = Counter(
            "model_requests_refused_total", "Requests refused because too many wait", ("priority",), registry=registry
        )
        self.ready = Gauge("model_ready", "1 when the models are loaded", registry=registry)

    def observe_batch(self, model: str, size: int, duration_s: float) -> None:
        self._seconds.labels(model).observe(duration_s)
        self._batch.labels(model).observe(size)
