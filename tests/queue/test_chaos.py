"""Workers, the broker and the database die at random while a folder is ingested: every picture is indexed, and the models' work is not done twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.sql.place import DatabasePlace
from tests.e2e.product import wait_for
from tests.fakes import picture
from tests.postgres import PostgresServer
from tests.queue.rig import QUICK, Fleet, why_not

WORKERS = 3
IN_FLIGHT = int(QUICK["INGEST_CONCURRENCY"])

pytestmark = [
    pytest.mark.serial,
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


class Chaos:
    """What may happen, and how many pictures at most were in flight when it did."""

    def __init__(self, fleet: Fleet, postgres: PostgresServer, rng: random.Random) -> None:
        self.fleet = fleet
        self.postgres = postgres
        self.rng = rng
        self.seconds_down = (0.2, 1.5)
        self.in_flight = 0

    def strike(self, what: str) -> None:
        strikes: dict[str, Callable[[], None]] = {
            "worker": self.kill_worker,
            "broker": self.restart_broker,
            "flush": self.fleet.redis.flush,
            "database": self.restart_database,
        }
        strikes[what]()

    def kill_worker(self) -> None:
        running = [worker for worker in self.fleet.workers if worker.is_running]
        self.rng.choice(running).end(signal.SIGKILL)
        self.in_flight += IN_FLIGHT
        self.fleet.add_worker()

    def restart_broker(self) -> None:
        self.fleet.redis.end(signal.SIGKILL)
        time.sleep(self.rng.uniform(*self.seconds_down))
        self.fleet.redis.start()

    def restart_database(self) -> None:
        self.postgres.stop(signal.SIGQUIT)
        time.sleep(self.rng.uniform(*self.seconds_down))
        self.postgres.start()
        self.in_flight += IN_FLIGHT * WORKERS


def write(fleet: Fleet, count: int) -> None:
    for number in range(count):
        target = fleet.images / f"{number % 10}" / f"{number}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(picture("red", mark=number))


def points(fleet: Fleet) -> dict[str, int]:
    collections = fleet.http.get(f"{fleet.urls['qdrant']}/collections").json()["result"]["collections"]
    return {
        one["name"]: fleet.http.post(
            f"{fleet.urls['qdrant']}/collections/{one['name']}/points/count", json={"exact": True}
        ).json()["result"]["count"]
        for one in collections
    }


def ingest_through(fleet: Fleet, chaos: Chaos, count: int, strikes: list[str], *, timeout_s: float) -> dict[str, Any]:
    write(fleet, count)
    for number, what in enumerate(strikes):
        fleet.wait_indexed(count * (number + 1) // (len(strikes) + 2), timeout_s=timeout_s)
        chaos.strike(what)
    fleet.wait_indexed(count, timeout_s=timeout_s)
    calls = fleet.calls()
    return {"calls": sum(calls.values()), "most": max(calls.values()), "pictures": len(calls), "points": points(fleet)}


def attack(
    tmp_path: Path, postgres: PostgresServer, database: DatabasePlace, count: int, strikes: list[str], *, timeout_s: float
) -> None:
    seed = int(os.environ.get("FAULT_SEED", random.randrange(2**31)))
    rng = random.Random(seed)
    rng.shuffle(strikes)
    print(f"FAULT_SEED={seed}: {strikes}")
    with Fleet(tmp_path / "fleet", database.url) as fleet:
        for _ in range(WORKERS):
            fleet.add_worker()
        chaos = Chaos(fleet, postgres, rng)
        found = ingest_through(fleet, chaos, count, strikes, timeout_s=timeout_s)
        print(found)
        assert found["pictures"] == count
        assert found["calls"] <= count + chaos.in_flight, found
        assert set(found["points"].values()) == {2 * count}  # a picture and its one segment in each collection
        assert fleet.counts() == {"pending": 0, "running": 0, "indexed": count, "failed": 0}
        wait_for("no task is believed to be on its way", lambda: not fleet.rows(), timeout_s=30)
        wait_for("nothing waits in the broker", lambda: not fleet.redis.keys().get("imagesearch.ingest"), timeout_s=30)
        codes = [worker.end() for worker in fleet.workers if worker.is_running]
        assert len(codes) == WORKERS
        assert {*codes} <= {0, -signal.SIGTERM}  # the latter of one that had just been started, and had nothing yet
        assert not [
            event for worker in (*fleet.workers, fleet.watcher) for event in worker.events() if event["level"] == "critical"
        ]


def test_two_hundred_pictures_are_indexed_once_each_though_workers_broker_and_database_die(
    tmp_path: Path, postgres: PostgresServer, database: DatabasePlace
) -> None:
    attack(tmp_path, postgres, database, 200, ["worker", "worker", "broker", "database"], timeout_s=150)


@pytest.mark.long
def test_two_thousand_pictures_are_indexed_once_each_through_thirty_deaths(
    tmp_path: Path, postgres: PostgresServer, database: DatabasePlace
) -> None:
    strikes = ["worker"] * 16 + ["broker"] * 6 + ["flush"] * 4 + ["database"] * 4
    attack(tmp_path, postgres, database, 2000, strikes, timeout_s=900)
