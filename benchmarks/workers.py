"""How ingestion grows with the number of workers, while the models take a fixed time for a picture; and what the rest costs a picture.

Real watcher, workers, Redis and PostgreSQL; Qdrant is a stand-in, whose times are not those of a server.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.rows import Row
from tests import postgres
from tests.e2e.product import wait_for
from tests.fakes import picture
from tests.queue import rig
from tests.queue.rig import Fleet

_WORKERS = (1, 2, 4, 8)
_CONCURRENCY = 4
_LATENCY_S = 2.0
_GOAL = 0.85
_TURNS = 9
"""Pictures that each place of each worker takes one after the other, of which the first and the last are not measured."""


class Seen(NamedTuple):
    """Of one run."""

    per_s: float
    cpu_ms: Mapping[str, float]
    """Of one picture."""


def rows(folder: Path) -> list[Row]:
    if (reason := rig.why_not() or postgres.why_not()) is not None:
        return [Row("workers: efficiency of eight", None, _GOAL, "higher", note=reason)]
    with postgres.postgres_server() as server:
        seen = {
            workers: _run(folder / str(workers), server.make_database(f"workers{workers}"), workers=workers, server=server.folder)
            for workers in _WORKERS
        }
    return [_row(workers, seen) for workers in _WORKERS[1:]]


def _row(workers: int, seen: Mapping[int, Seen]) -> Row:
    found = seen[workers]
    detail = {"one_per_s": seen[1].per_s, f"{workers}_per_s": found.per_s}
    cpu = {f"cpu_ms_of_{name}": value for name, value in found.cpu_ms.items()} if workers == _WORKERS[-1] else {}
    note = f"{_CONCURRENCY} pictures at once a worker, {_LATENCY_S:g} s of the models for each"
    return Row(
        f"workers: efficiency of {workers}",
        found.per_s / workers / seen[1].per_s,
        _GOAL,
        "higher",
        detail={**detail, **cpu},
        note=note,
    )


def _run(folder: Path, database_url: str, *, workers: int, server: Path) -> Seen:
    """All pictures are noticed before the clock runs."""
    places = workers * _CONCURRENCY
    count = places * _TURNS
    settings = {"INGEST_CONCURRENCY": str(_CONCURRENCY), "LOG_LEVEL": "warning", "LEASE_S": "60"}
    with Fleet(folder, database_url, latency_s=_LATENCY_S, environment=settings) as fleet:
        for number in range(count):
            (fleet.images / f"{number}.png").write_bytes(picture("red", mark=number))
        wait_for("noticed", lambda: fleet.counts().get("pending") == count, timeout_s=120)
        wait_for("sent", lambda: len(fleet.rows()) == count, timeout_s=120)
        for _ in range(workers):
            fleet.add_worker()
        for worker in fleet.workers:
            wait_for("a worker", lambda url=worker.url: fleet.answers(f"{url}/health/ready"), timeout_s=120)  # type: ignore[misc]
        fleet.wait_indexed(2 * places, timeout_s=120)
        first, began, spent = fleet.indexed(), time.perf_counter(), _cpu_s(fleet, server)
        fleet.wait_indexed(count - 2 * places, timeout_s=300)
        last, ended, after = fleet.indexed(), time.perf_counter(), _cpu_s(fleet, server)
    done = last - first
    return Seen(done / (ended - began), {name: (after[name] - spent[name]) / done * 1000 for name in after})


def _cpu_s(fleet: Fleet, server: Path) -> dict[str, float]:
    postmaster = int((server / "data" / "postmaster.pid").read_text().split()[0])
    parts = {"watcher": fleet.watcher, "redis": fleet.redis, "stand-in_qdrant": fleet.qdrant}
    pids = {
        "workers": [worker.pid for worker in fleet.workers],
        "postgresql": [postmaster],
        **{name: [part.pid] for name, part in parts.items()},
    }
    return {name: sum(map(_of_tree, found)) for name, found in pids.items()}


def _of_tree(pid: int) -> float:
    """Processor seconds so far, with those of what it started."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:4]) for one in [process, *process.children(recursive=True)])
