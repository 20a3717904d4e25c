"""Upserts of several pictures in one call: whole, bounded, and each with an outcome of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import numpy as np

from core.errors import InvalidRequest, VectorsUnavailable
from core.ports import Point
from core.vectors.gathering import Gathering

_DIM = 4


def picture(n: int, *, points: int = 10) -> list[Point]:
    return [Point(str(UUID(int=n * 1000 + i)), np.ones(_DIM, np.float32), {"n": n}) for i in range(points)]


class Store:
    """Remembers its calls; each takes as long as `gate` is closed."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.under_way = self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.bad: set[int] = set()
        self.away = False

    async def write(self, collection: str, points: Sequence[Point]) -> None:
        self.calls.append(list(dict.fromkeys(point.payload["n"] for point in points)))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.away:
            raise VectorsUnavailable("away")
        if self.bad & set(self.calls[-1]):
            raise InvalidRequest("a bad point")


def gathering(store: Store, *, bytes_waiting: int = 2**20) -> Gathering:
    return Gathering(store.write, points_per_call=lambda _: 60, bytes_waiting=bytes_waiting, linger_s=0.001)


async def test_pictures_that_come_together_are_written_in_few_calls_each_once_and_whole() -> None:
    store = Store()
    gathered = gathering(store)
    await asyncio.gather(*(gathered.put("a", picture(n)) for n in range(100)))
    assert sorted(n for call in store.calls for n in call) == list(range(100))
    assert len(store.calls) <= 20
    assert max(map(len, store.calls)) == 6
    assert store.most_under_way <= 4
    assert gathered.bytes_held == 0


async def test_nobody_returns_before_the_call_with_its_points_was_acknowledged() -> None:
    store = Store()
    store.gate.clear()
    gathered = gathering(store)
    puts = [asyncio.create_task(gathered.put("a", picture(n))) for n in range(8)]
    while len(store.calls) < 2:
        await asyncio.sleep(0.001)
    assert not any(put.done() for put in puts)
    store.gate.set()
    await asyncio.gather(*puts)


async def test_one_bad_picture_fails_alone() -> None:
    store = Store()
    store.bad = {3}
    gathered = gathering(store)
    outcomes = await asyncio.gather(*(gathered.put("a", picture(n)) for n in range(6)), return_exceptions=True)
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, InvalidRequest)] == [3]
    assert [n for n, outcome in enumerate(outcomes) if outcome is None] == [0, 1, 2, 4, 5]


async def test_an_outage_is_told_to_all_and_the_next_call_is_made_anew() -> None:
    store = Store()
    store.away = True
    gathered = gathering(store)
    outcomes = await asyncio.gather(*(gathered.put("a", picture(n)) for n in range(6)), return_exceptions=True)
    assert all(isinstance(outcome, VectorsUnavailable) for outcome in outcomes)
    store.away = False
    await gathered.put("a", picture(1))
    assert gathered.bytes_held == 0


async def test_who_brings_more_than_there_is_room_for_waits_and_one_that_is_larger_than_all_room_passes_alone() -> None:
    store = Store()
    store.gate.clear()
    gathered = gathering(store, bytes_waiting=20_000)
    puts = [asyncio.create_task(gathered.put("a", picture(n))) for n in range(30)]
    huge = asyncio.create_task(gathered.put("a", picture(99, points=500)))
    while not store.calls:
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0)
    assert 0 < gathered.bytes_held <= 20_000
    store.gate.set()
    await asyncio.gather(*puts, huge)
    assert sorted(n for call in store.calls for n in call) == [*range(30), 99]
    assert [99] in store.calls


async def test_one_that_does_not_wait_any_more_is_not_written_and_holds_no_room() -> None:
    store = Store()
    store.gate.clear()
    gathered = gathering(store)
    first = [asyncio.create_task(gathered.put("a", picture(n, points=60))) for n in range(4)]
    while len(store.calls) < 4:
        await asyncio.sleep(0.001)
    impatient = asyncio.create_task(gathered.put("a", picture(9)))
    await asyncio.sleep(0)
    impatient.cancel()
    store.gate.set()
    await asyncio.gather(*first)
    await gathered.put("a", picture(10))
    assert not [call for call in store.calls if 9 in call]
    assert gathered.bytes_held == 0


async def test_closing_leaves_nobody_waiting() -> None:
    store = Store()
    store.gate.clear()
    gathered = gathering(store, bytes_waiting=20_000)
    puts = [asyncio.create_task(gathered.put("a", picture(n))) for n in range(40)]
    while not store.calls:
        await asyncio.sleep(0.001)
    store.away = True
    await gathered.close()
    store.gate.set()
    outcomes = await asyncio.wait_for(asyncio.gather(*puts, return_exceptions=True), 10)
    assert all(isinstance(outcome, VectorsUnavailable) for outcome in outcomes)


async def test_collections_are_written_apart() -> None:
    store = Store()
    gathered = gathering(store)
    await asyncio.gather(*(gathered.put(name, picture(n)) for n, name in enumerate("abab")))
    assert sorted(map(tuple, store.calls)) == [(0, 2), (1, 3)]


async def test_an_empty_picture_costs_no_call() -> None:
    store = Store()
    await gathering(store).put("a", [])
    assert not store.calls
