"""`kill -9` at random moments: whatever the instant, the next start ends with every image indexed exactly once."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.agreement import disagreements
from tests.e2e.product import Product, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.serial, pytest.mark.timeout(900)]

IMAGES = 400
KILLS_WHILE_INGESTING = 20
KILLS_WHILE_STARTING = 4


def test_twenty_four_kills_in_one_ingestion_lose_and_double_nothing(product: Product) -> None:
    seed = int(os.environ.get("KILL_SEED", "20261121"))
    print(f"KILL_SEED={seed}")
    rng = random.Random(seed)
    product.environment["INGEST_CONCURRENCY"] = "1"
    for number in range(IMAGES):
        colour, shape = rng.choice(("red", "green", "blue", "yellow")), rng.choice(("circle", "square"))
        folder = product.images / f"batch {number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(synthetic_picture(colour, shape, 256, seed=number))
    shutil.copy(product.images / "batch 0" / "0.jpg", product.images / "the same bytes.jpg")
    broken = product.images / "broken.jpg"
    broken.write_bytes(synthetic_picture("red", "circle", 256, seed=9999)[:900])

    for _ in range(KILLS_WHILE_STARTING):
        product.start()
        time.sleep(rng.uniform(0.1, 3.0))
        product.kill()
    indexed = 0
    for _ in range(KILLS_WHILE_INGESTING):
        product.start()
        indexed = _wait_for_progress_beyond(product, indexed)
        time.sleep(rng.uniform(0.0, 0.2))
        product.kill()
        assert indexed < IMAGES, "the ingestion was over before the last kill: the kills prove nothing"

    product.start_and_wait()
    product.wait_until_indexed(IMAGES, failed=1, timeout_s=300)
    assert product.interrupt() == 0
    failed = frozenset({hashlib.sha256(broken.read_bytes()).hexdigest()})
    assert disagreements(product.images, product.state, failed=failed) == []


def test_a_killed_model_service_is_restarted_and_loses_nothing(product: Product) -> None:
    for number in range(60):
        (product.images / f"{number}.jpg").write_bytes(synthetic_picture("blue", "circle", 256, seed=number))
    product.start_and_wait()
    for _ in range(3):
        started = [event for event in product.log_events() if event["event"] == "model_service_started"]
        os.kill(started[-1]["pid"], signal.SIGKILL)
        seen = len(started)
        wait_for("restarted", lambda seen=seen: _count_starts(product) > seen, timeout_s=40)
        wait_for("ready again", product.is_ready, timeout_s=60)
    product.wait_until_indexed(60)
    assert product.interrupt() == 0
    assert disagreements(product.images, product.state) == []


def test_nothing_is_left_running_after_a_kill(product: Product) -> None:
    product.start_and_wait()
    model_pid = next(event["pid"] for event in product.log_events() if event["event"] == "model_service_started")
    product.kill()
    wait_for("the model service ends with its parent", lambda: not Path(f"/proc/{model_pid}").exists(), timeout_s=15)


def _wait_for_progress_beyond(product: Product, indexed: int) -> int:
    """Wait until more images are indexed than at the last kill. Returns how many."""

    def progressed() -> int | None:
        try:
            now: int = product.status()["images"]["indexed"]
        except httpx.TransportError:
            return None
        return now if now > indexed else None

    found: int = wait_for("progress", progressed, timeout_s=90, every_s=0.02)
    return found


def _count_starts(product: Product) -> int:
    return sum(1 for event in product.log_events() if event["event"] == "model_service_started")
