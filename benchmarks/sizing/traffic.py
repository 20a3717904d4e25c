"""What a picture is for broker and database, with a real watcher, workers, Redis and PostgreSQL. Qdrant and the models are stand-ins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
import redis

from tests.e2e.product import wait_for
from tests.fakes import picture
from tests.postgres import PostgresServer
from tests.queue.rig import Fleet

_WORKERS = 2
_REST_S = 6.0
"""How long it is watched while there is nothing to do: what it then asks is no picture's."""
_WAITING = 300


class Seen(NamedTuple):
    """Totals so far."""

    at_s: float
    commands: float
    broker_bytes: float
    statements: float
    transactions: float
    cpu_s: Mapping[str, float]


class Traffic(NamedTuple):
    """Of one picture."""

    commands: float
    broker_bytes: float
    statements: float
    transactions: float
    cpu_s: Mapping[str, float]
    task_bytes: float


def measured(folder: Path, server: PostgresServer, *, count: int) -> Traffic:
    _count_statements(server)
    url = server.make_database("traffic")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
    settings = {"INGEST_CONCURRENCY": "8", "LOG_LEVEL": "warning", "LEASE_S": "60"}
    with Fleet(folder, url, latency_s=0.2, environment=settings) as fleet:
        task_bytes = _task_bytes(fleet)
        for _ in range(_WORKERS):
            fleet.add_worker()
        fleet.wait_indexed(_WAITING, timeout_s=1200)
        idle = _seen(fleet, server)
        time.sleep(_REST_S)
        before = _seen(fleet, server)
        _bring(fleet, _WAITING, _WAITING + count)
        fleet.wait_indexed(_WAITING + count, timeout_s=1200)
        return _a_picture(idle, before, _seen(fleet, server), count, task_bytes)


def _count_statements(server: PostgresServer) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
    server.stop()
    server.start()


def _task_bytes(fleet: Fleet) -> float:
    """Of Redis' memory, each task that waits while nobody takes any."""
    with redis.Redis(port=fleet.redis.port) as client:
        wait_for("the watcher", lambda: bool(fleet.counts()), timeout_s=300)
        before = _told(client, "memory", "used_memory")
        _bring(fleet, 0, _WAITING)
        wait_for("sent", lambda: len(fleet.rows()) >= _WAITING, timeout_s=1200)
        return (_told(client, "memory", "used_memory") - before) / len(fleet.rows())


def _bring(fleet: Fleet, first: int, end: int) -> None:
    """In one folder, moved in at once."""
    place = fleet.root / f"from-{first}"
    place.mkdir()
    for number in range(first, end):
        (place / f"{number}.png").write_bytes(picture("red", mark=number))
    place.rename(fleet.images / place.name)


def _seen(fleet: Fleet, server: PostgresServer) -> Seen:
    with redis.Redis(port=fleet.redis.port) as client:
        commands = _told(client, "stats", "total_commands_processed")
        moved = _told(client, "stats", "total_net_input_bytes") + _told(client, "stats", "total_net_output_bytes")
    with psycopg.connect(fleet.database_url) as connection:
        asked = "SELECT sum(calls) FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        statements = _one(connection, f"{asked} AND query !~* '^(begin|commit|set )'")
        transactions = _one(connection, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return Seen(time.perf_counter(), commands, moved, statements, transactions, _cpu_s(fleet, server))


def _told(client: redis.Redis, section: str, name: str) -> float:
    return float(client.info(section)[name])


def _one(connection: psycopg.Connection[tuple[object, ...]], sql: str) -> float:
    row = connection.execute(sql.encode()).fetchone()
    return float(str(row[0])) if row is not None else 0.0


def _cpu_s(fleet: Fleet, server: PostgresServer) -> dict[str, float]:
    postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    pids = {
        "watcher": [fleet.watcher.pid],
        "workers": [worker.pid for worker in fleet.workers],
        "postgresql": [postmaster],
        "redis": [fleet.redis.pid],
    }
    return {name: sum(map(_of_tree, found)) for name, found in pids.items()}


def _of_tree(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:4]) for one in [process, *process.children(recursive=True)])


def _a_picture(idle: Seen, before: Seen, after: Seen, count: int, task_bytes: float) -> Traffic:
    """Less what the same time costs without any."""

    def each(idle: float, before: float, after: float) -> float:
        return (after - before - (before - idle) / rest_s * busy_s) / count

    rest_s, busy_s = before.at_s - idle.at_s, after.at_s - before.at_s
    return Traffic(
        each(idle.commands, before.commands, after.commands),
        each(idle.broker_bytes, before.broker_bytes, after.broker_bytes),
        each(idle.statements, before.statements, after.statements),
        each(idle.transactions, before.transactions, after.transactions),
        {name: each(idle.cpu_s[name], before.cpu_s[name], after.cpu_s[name]) for name in after.cpu_s},
        task_bytes,
    )
