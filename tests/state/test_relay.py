"""What a watcher on standby is told reaches the one that notices: callers behind one address cannot choose whom they tell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from core.sql.connection import Connection
from core.sql.place import DatabasePlace
from tests.buckets import KEYS, FakeS3
from tests.unit.watcher.fakes import FakeEmbedder, House, jpeg
from tests.unit.watcher.test_bucket import BucketHouse
from watcher import relay
from watcher.app import running_watcher
from watcher.observer import Hint
from watcher.shared_ledger import SharedLedger


@pytest.fixture
def house(database: DatabasePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketHouse]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_access_key)
    with FakeS3() as service:
        house = BucketHouse(tmp_path, service.bucket())
        house.options |= {"database_url": database.url, "reconcile_interval_s": 3600}
        yield house


async def test_a_hint_at_the_watcher_on_standby_brings_an_object_in_long_before_the_bucket_is_listed(house: House) -> None:
    assert isinstance(house, BucketHouse)
    house.put("before.jpg", jpeg("before"))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(house.running())
        other = await stack.enter_async_context(running_watcher(house.settings(), FakeEmbedder(), house.store))
        await house.agreed(30)
        assert (await first.catalog.status()).watcher.state == "watching"
        assert (await other.catalog.status()).watcher.state == "standby"
        house.put("new.jpg", jpeg("new"))
        house.put("again.jpg", jpeg("again"))
        assert await other.catalog.hint(["new.jpg", "again.jpg", "again.jpg", "never/was.jpg", "../no.jpg"]) == 3
        await house.agreed(30)
        house.delete("before.jpg")
        await other.catalog.hint(["before.jpg"], backfill=True)
        await house.agreed(30)


async def test_hints_that_were_left_wait_for_whoever_takes_the_watch(house: House, database: DatabasePlace) -> None:
    async with SharedLedger(database) as ledger:
        await ledger.run(relay.leave, [Hint(f"{number}.jpg") for number in range(2500)])
        async with house.running(), asyncio.timeout(30):
            while await ledger.run(_left):
                await asyncio.sleep(0.02)


def _left(connection: Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM hints").fetchone()
    return int(count)


async def test_paths_are_left_once_and_taken_once_by_whoever_is_first(database: DatabasePlace) -> None:
    async with SharedLedger(database) as ledger:
        paths = [f"{number}.jpg" for number in range(3000)]
        orders = (paths, paths[::-1], paths[1500:] + paths[:1500])
        await asyncio.gather(*(ledger.run(relay.leave, [Hint(path, prompt=False) for path in order]) for order in orders))
        await ledger.run(relay.leave, [Hint("7.jpg"), Hint("7.jpg", prompt=False), Hint("Ä b+'\\.jpg", prompt=False)])
        taken: list[Hint] = []

        async def take_all() -> None:
            while await ledger.run(_left):
                taken.extend(await ledger.run(relay.take, 500))

        await asyncio.gather(*(take_all() for _ in range(4)))
        found = {hint.path: hint.prompt for hint in taken}
        assert len(taken) == len(found) == 3001
        assert [path for path, prompt in found.items() if prompt] == ["7.jpg"]
