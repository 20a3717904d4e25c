"""What workers do with tasks, as processes: outages, ends, poison, urgency, and what an operator sees of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from core.sql.place import DatabasePlace
from tests.e2e.product import wait_for
from tests.fakes import image_id_of, picture
from tests.queue.rabbit import Rabbit
from tests.queue.rig import Fleet, why_not

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture
def fleet(tmp_path: Path, database: DatabasePlace) -> Iterator[Fleet]:
    """Without workers. A picture takes the models half a second."""
    with Fleet(tmp_path / "fleet", database.url, latency_s=0.5, environment={"INGEST_CONCURRENCY": "4"}) as running:
        yield running


def add(fleet: Fleet, *marks: int) -> list[str]:
    contents = [picture("red", mark=mark) for mark in marks]
    for mark, content in zip(marks, contents, strict=True):
        (fleet.images / f"{mark}.png").write_bytes(content)
    return [image_id_of(content) for content in contents]


def test_a_worker_outlives_the_broker_and_goes_on_with_what_that_lost(fleet: Fleet) -> None:
    worker = fleet.add_worker()
    add(fleet, *range(40))
    fleet.wait_indexed(2, timeout_s=60)
    fleet.redis.end(signal.SIGKILL)
    # all that was in hand ends meanwhile, and nobody can be told
    wait_for("broker missed", lambda: "broker" in (fleet.status()["watcher"]["waiting_for"] or ""), timeout_s=30)
    wait_for("ended in hand", lambda: fleet.counts()["running"] == 0, timeout_s=30)
    assert fleet.counts()["indexed"] < 40
    ready = httpx.get(f"{worker.url}/health/ready", trust_env=False)
    assert (ready.status_code, ready.json()["checks"]["broker"]) == (503, "the broker does not answer now")
    assert httpx.get(f"{worker.url}/health/live", trust_env=False).status_code == 200
    fleet.redis.start()
    fleet.wait_indexed(40, timeout_s=60)
    assert fleet.status()["watcher"]["waiting_for"] is None
    assert max(fleet.calls().values()) == 1
    add(fleet, 1000)
    fleet.wait_indexed(41, timeout_s=30)
    metrics = httpx.get(f"{worker.url}/metrics", trust_env=False).text
    assert 'ingestion_indexed_total{how="analysed"} 41.0' in metrics
    assert worker.end() == 0


@pytest.mark.long
def test_a_worker_that_ends_gives_back_what_it_cannot_finish_and_another_goes_on(fleet: Fleet) -> None:
    slow = fleet.add_worker(SHUTDOWN_GRACE_S="0.1")
    add(fleet, *range(8))
    fleet.wait_indexed(1, timeout_s=60)
    assert slow.end() == 0
    assert fleet.counts()["running"] == 0
    fleet.add_worker()
    fleet.wait_indexed(8, timeout_s=30)


@pytest.mark.long
def test_a_new_picture_overtakes_a_backfill(fleet: Fleet) -> None:
    marks = range(200)
    add(fleet, *marks)  # a copied tree is a backfill; only its first pictures count as new
    wait_for("a full broker", lambda: len(fleet.rows()) == len(marks), timeout_s=60)
    fleet.add_worker()
    fleet.wait_indexed(40, timeout_s=60)
    (new,) = add(fleet, 1000)
    wait_for("indexed", lambda: _state(fleet, new) == "indexed", timeout_s=30)
    assert fleet.counts()["pending"] > 80


def test_poison_is_parked_with_its_reason_and_its_neighbours_are_indexed(fleet: Fleet) -> None:
    fleet.add_worker()
    fleet.add_worker()
    poison = picture("red", mark=77) + b"poison"
    (fleet.images / "poison.png").write_bytes(poison)
    (fleet.images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture\x00\x00\x00\x00IEND\xaeB`\x82")
    add(fleet, *range(10))
    wait_for("settled", lambda: fleet.counts().get("indexed") == 10 and fleet.counts().get("failed") == 2, timeout_s=90)
    failures = fleet.http.get(f"{fleet.urls['watcher']}/v1/failures").json()["failures"]
    reasons = {failure["path"]: failure["reason"] for failure in failures}
    assert reasons == {"poison.png": "crashes_model", "broken.png": "not_an_image"}
    assert fleet.calls()[image_id_of(poison)] == 4
    assert not fleet.rows()
    assert not fleet.redis.keys().get("imagesearch.ingest")


@pytest.mark.long
def test_all_workers_together_keep_to_the_rate(tmp_path: Path, database: DatabasePlace) -> None:
    with Fleet(tmp_path / "fleet", database.url, environment={"INGEST_RATE_PER_S": "4"}) as fleet:
        add(fleet, *range(40))
        fleet.add_worker()
        fleet.add_worker()
        fleet.wait_indexed(10, timeout_s=60)
        began, before = time.monotonic(), fleet.counts()["indexed"]
        fleet.wait_indexed(before + 16, timeout_s=60)
        assert (fleet.counts()["indexed"] - before) / (time.monotonic() - began) < 6


def _state(fleet: Fleet, image_id: str) -> str | None:
    answer = fleet.http.get(f"{fleet.urls['watcher']}/v1/images/{image_id}")
    return answer.json()["state"] if answer.status_code == 200 else None


@pytest.mark.long
@pytest.mark.timeout(900)
def test_pictures_are_ingested_over_rabbitmq_which_is_killed_and_started_again_and_loses_none(
    tmp_path: Path, database: DatabasePlace, rabbitmq: Rabbit
) -> None:
    quick = {"INGEST_CONCURRENCY": "4"}
    with Fleet(tmp_path / "fleet", database.url, latency_s=0.5, environment=quick, broker=rabbitmq) as fleet:
        worker = fleet.add_worker()
        add(fleet, *range(40))
        fleet.wait_indexed(2, timeout_s=240)
        rabbitmq.end(signal.SIGKILL)
        wait_for("broker missed", lambda: "broker" in (fleet.status()["watcher"]["waiting_for"] or ""), timeout_s=120)
        wait_for("ended in hand", lambda: fleet.counts().get("running") == 0, timeout_s=120)
        rabbitmq.start()
        fleet.wait_indexed(40, timeout_s=240)
        assert max(fleet.calls().values()) == 1
        assert fleet.counts() == {"pending": 0, "running": 0, "indexed": 40, "failed": 0}
        wait_for("no task left", lambda: not rabbitmq.keys()["imagesearch.ingest"] and not fleet.rows(), timeout_s=120)
        add(fleet, 1000)
        fleet.wait_indexed(41, timeout_s=120)
        assert worker.end() == 0
        assert "guest:guest" not in worker.log.read_text() + fleet.watcher.log.read_text()
