"""What every service measures of itself, for Prometheus. Names, types and labels of all metrics: docs/how-to/watch-it-run.md."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from aiohttp import hdrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets for what somebody waits for: from a lookup to the longest that anybody stays."""


def service_registry() -> CollectorRegistry:
    """A registry that knows this process: processor, memory, open files, and threads, those of the native libraries included."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would nearly double the series, and nothing reads them
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Gauge("process_threads", "Threads of the process, native ones included", registry=registry).set_function(_threads)
    return registry


def _threads() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:  # not Linux
        return threading.active_count()


class HttpMetrics:
    """Requests of one service, by route template and never by address, so that nobody can make more of them than there are routes."""

    def __init__(self, registry: CollectorRegistry, service: str) -> None:
        labels = ("service", "method", "route", "status")
        self._service = service
        self._requests = Counter("http_requests_total", "HTTP requests answered", labels, registry=registry)
        self._seconds = Histogram(
            "http_request_duration_seconds", "Time until the answer began", labels, buckets=SHORT_S, registry=registry
        )
        self._in_flight = Gauge(
            "http_requests_in_flight", "HTTP requests that are being answered", ("service",), registry=registry
        ).labels(service)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        with self._in_flight.track_inprogress():
            yield

    def observe(self, method: str, route: str, status: int, duration_s: float) -> None:
        known = method if method in hdrs.METH_ALL else "other"
        labels = (self._service, known, route, str(status))
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(duration_s)


def decoder_deaths(registry: CollectorRegistry) -> Counter:
    """To be counted by `core.decoding`."""
    return Counter("decoder_deaths_total", "Processes that died while they decoded a picture", registry=registry)


def measure_disk(registry: CollectorRegistry, folder: Path) -> None:
    """Tell how full the disk of `folder` is, whenever it is asked; not a number while nobody can say."""
    free = Gauge("data_disk_free_bytes", "Bytes that can still be written to the disk of DATA_DIR", registry=registry)
    size = Gauge("data_disk_size_bytes", "Bytes that the disk of DATA_DIR has in all", registry=registry)
    free.set_function(lambda: _disk_bytes(folder, "f_bavail"))
    size.set_function(lambda: _disk_bytes(folder, "f_blocks"))


def _disk_bytes(folder: Path, blocks: Literal["f_bavail", "f_blocks"]) -> float:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return math.nan
    return float(getattr(disk, blocks) * disk.f_frsize)
