"""What is started while the database comes and goes."""

from __future__ import annotations

import asyncio

import pytest

from core.sql import pool
from core.sql.migrations import migrate
from core.sql.place import DatabasePlace
from core.sql.pool import PostgresPool
from tests.postgres import PostgresServer
from watcher import database as ledger


async def test_a_database_that_goes_away_behind_the_first_look_at_it_is_waited_for(
    database: DatabasePlace, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def migrate_and_lose_it(session: object, steps: object, *, part: str) -> None:
        migrate(session, steps, part=part)  # type: ignore[arg-type]
        looks.append(part)
        if len(looks) == 1:
            postgres.stop()

    async def back_again() -> None:
        while not looks:
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        await asyncio.to_thread(postgres.start)

    monkeypatch.setattr(pool, "migrate", migrate_and_lose_it)
    returning = asyncio.create_task(back_again())
    place = DatabasePlace(database.url, connect_timeout_s=1.0)
    opened = PostgresPool(place, ledger.postgres_steps(), part="ledger", what="the ledger", durable=False)
    async with opened:
        await returning
        assert opened.now() > 0
    assert len(looks) == 2
