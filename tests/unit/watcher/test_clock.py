"""The clock was set back: what was written by the later one does not wait until it comes round again."""

from __future__ import annotations

import sqlite3
import time

import pytest

from core.errors import ModelUnavailable
from tests.unit.watcher.fakes import House, jpeg, until
from watcher.database import LEDGER_NAME


async def test_a_start_after_the_clock_was_set_back_waits_for_nothing(house: House) -> None:
    house.write("gone.jpg", jpeg("gone"))
    house.write("put off.jpg", jpeg("put off"))
    async with house.running():
        await house.agreed()
    (house.images / "gone.jpg").unlink()
    connection = sqlite3.connect(house.state / LEDGER_NAME)
    with connection:
        connection.execute("DELETE FROM paths WHERE path = 'gone.jpg'")
        connection.execute("UPDATE images SET orphaned_at = 9e9 WHERE image_id NOT IN (SELECT image_id FROM paths)")
        connection.execute("UPDATE images SET state = 'pending', next_attempt_at = 9e9 WHERE orphaned_at IS NULL")
    connection.close()
    async with house.running():
        await house.agreed(timeout_s=8)


async def test_while_it_runs_as_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.options |= {"lease_s": 0.3, "orphan_grace_s": 0.4}
    house.write("gone.jpg", jpeg("gone"))
    async with house.running():
        await house.agreed()
        house.embedder.away = ModelUnavailable("away for a moment")
        (house.images / "gone.jpg").unlink()
        await until(lambda: house.ledger_rows("SELECT 1 FROM images WHERE orphaned_at IS NOT NULL") == [(1,)])
        true_time = time.time
        monkeypatch.setattr("time.time", lambda: true_time() - 86_400)
        house.embedder.away = None
        await house.agreed(timeout_s=8)
