"""The real processes over damaged state, and over a restored backup."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.agreement import disagreements
from tests.e2e.conftest import product, weights  # noqa: F401 - fixtures
from tests.e2e.product import REPOSITORY, Product
from tests.state.damage import HARMS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PICTURES = 8
SEED = int(os.environ.get("DAMAGE_SEED", "20261121"))


def backups(product: Product, *arguments: str) -> subprocess.CompletedProcess[str]:  # noqa: F811
    command = [sys.executable, "-m", "standalone.backups", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=product.environment, capture_output=True, text=True, timeout=120, check=False
    )


def rate(product: Product) -> str:  # noqa: F811
    """Returns the token that is spent now."""
    token: str = product.search("a red circle")["jwt"]
    answer = product.http.post("/api/v1/create-feedback", json={"user_feedback": 9, "jwt": token})
    assert answer.status_code == 201, answer.text
    return token


@pytest.mark.long
def test_damaged_in_every_part_and_restored_it_answers_and_agrees_with_the_folder(product: Product, tmp_path: Path) -> None:  # noqa: F811
    print(f"DAMAGE_SEED={SEED}")
    rng = random.Random(SEED)
    for number in range(PICTURES):
        colour, shape = ("red", "green", "blue", "yellow")[number % 4], ("circle", "square")[number // 4]
        (product.images / f"{colour}-{shape}.jpg").write_bytes(synthetic_picture(colour, shape, 64, seed=number))
    product.start_and_wait()
    product.wait_until_indexed(PICTURES)
    token = rate(product)
    taken = backups(product, "take", str(tmp_path / "backup"))
    assert taken.returncode == 0, taken.stderr
    assert f"{PICTURES} indexed pictures" in taken.stdout
    refused = backups(product, "restore", str(tmp_path / "backup"))
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
    later = rate(product)
    product.kill()

    (segment, *_) = sorted((product.state / "vectors").glob("*/segments/*/segment.json"))
    for path in (product.state / "ledger.sqlite3", product.state / "feedback.sqlite"):
        HARMS["emptied"](path, rng)
    HARMS["halved"](segment, rng)
    product.start_and_wait()
    product.wait_until_indexed(PICTURES)
    health = product.http.get("/health").json()
    assert {repair["part"] for repair in health["repairs"]} == {"ledger", "vectors", "feedback"}
    assert product.status()["watcher"]["repairs"] == health["repairs"]
    assert [event["part"] for event in product.log_events() if event["event"] == "state_repaired"].count("ledger") == 1
    for spent in (token, later):  # they were in the journal, which is whole
        assert product.http.post("/api/v1/create-feedback", json={"user_feedback": 1, "jwt": spent}).status_code == 409
    assert product.interrupt() == 0
    assert disagreements(product.images, product.state) == []

    restored = backups(product, "restore", str(tmp_path / "backup"))
    assert restored.returncode == 0, restored.stderr
    product.start_and_wait()
    product.wait_until_indexed(PICTURES)
    assert product.http.post("/api/v1/create-feedback", json={"user_feedback": 1, "jwt": token}).status_code == 409
    assert product.http.post("/api/v1/create-feedback", json={"user_feedback": 1, "jwt": later}).status_code == 201
    assert len(product.search("a red circle")["matches"]) > 0
    assert product.interrupt() == 0
    assert disagreements(product.images, product.state) == []
