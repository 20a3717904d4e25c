"""What a caller sees of the model services that it balances over."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge


class Outcome(StrEnum):
    """What became of one request to one replica."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    ABANDONED = "abandoned"


class ReplicaMetrics:
    """`replica` is the host and port of an address of the settings, so nobody can make more of them than there are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "model_replica_requests_total",
            "Requests to a model service, by what became of them",
            ("replica", "outcome"),
            registry=registry,
        )
        self._in_flight = Gauge(
            "model_replica_requests_in_flight",
            "Requests that a model service was asked and has not answered",
            ("replica",),
            registry=registry,
        )
        self._ready = Gauge(
            "model_replica_ready", "1 while a model service says that it is ready", ("replica",), registry=registry
        )
        self._open = Gauge(
            "model_replica_circuit_open", "1 while a model service is left alone after failures", ("replica",), registry=registry
        )
        self._differ = Gauge("model_replicas_differ", "1 while model services are of different models", registry=registry)
        self._retries = Counter(
            "model_retries_total",
            "Requests moved to another model service, or not since too many were",
            ("result",),
            registry=registry,
        )
        self._hedges = Counter(
            "model_hedges_total",
            "Queries that a second model service was asked, too, by who answered first",
            ("result",),
            registry=registry,
        )
        for result in ("moved", "denied"):
            self._retries.labels(result)
        for result in ("won", "lost"):
            self._hedges.labels(result)

    def follow(
        self, replica: str, *, in_flight: Callable[[], float], ready: Callable[[], float], circuit_open: Callable[[], float]
    ) -> None:
        """All are asked on the event loop, whenever the metrics are read."""
        self._in_flight.labels(replica).set_function(in_flight)
        self._ready.labels(replica).set_function(ready)
        self._open.labels(replica).set_function(circuit_open)
        for outcome in Outcome:
            self._requests.labels(replica, outcome)

    def follow_differing(self, differ: Callable[[], float]) -> None:
        self._differ.set_function(differ)

    def note_request(self, replica: str, outcome: Outcome) -> None:
        self._requests.labels(replica, outcome).inc()

    def note_retry(self, *, allowed: bool) -> None:
        self._retries.labels("moved" if allowed else "denied").inc()

    def note_hedge(self, *, won: bool) -> None:
        self._hedges.labels("won" if won else "lost").inc()
