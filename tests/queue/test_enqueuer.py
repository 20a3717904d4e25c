"""Who sends: in time, at its rate, and all of it again where the broker lost it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from core.errors import ModelUnreachable, Unavailable
from core.sql.place import DatabasePlace
from tests.queue.rig import why_not
from tests.queue.test_tasks import admit, name
from watcher.ledger import Ledger
from watcher.metrics import IngestionMetrics
from watcher.outage import Outage
from watcher.queue import tasks
from watcher.queue.metrics import QueueMetrics
from watcher.queue.tasks import Task
from watcher.shared_ledger import SharedLedger

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class FakeBroker:
    """Takes so many tasks and no more."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.sent: list[str] = []
        self.takes = 10_000

    async def send(self, given: Sequence[Task]) -> int:
        taken = [task.image_id for task in given[: self.takes]]
        self.takes -= len(taken)
        self.held += taken
        self.sent += taken
        return len(taken)

    async def waiting(self) -> int:
        if not self.takes:
            raise Unavailable("the broker does not answer now")
        return len(self.held)


class FakeWorker:
    takes_new_alone = False

    def __init__(self) -> None:
        self.outage = Outage(0.2)
        self.away: Unavailable | None = None

    async def models(self) -> None:
        if self.away is not None:
            raise self.away

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))


@pytest.fixture
async def ledger(database: DatabasePlace) -> AsyncIterator[Ledger]:
    async with SharedLedger(database) as opened:
        yield opened


@asynccontextmanager
async def enqueuing(ledger: Ledger, broker: FakeBroker, worker: FakeWorker, *, rate_per_s: float = 0.0) -> AsyncIterator[None]:
    from watcher.queue.enqueuer import Enqueuer

    registry = CollectorRegistry()
    enqueuer = Enqueuer(broker, QueueMetrics(registry), IngestionMetrics(registry), rate_per_s=rate_per_s)  # type: ignore[arg-type]
    running = asyncio.create_task(enqueuer.run(worker, ledger))  # type: ignore[arg-type]
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until(true: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


async def test_the_broker_holds_a_window_of_a_backfill_that_follows_what_workers_take(ledger: Ledger) -> None:
    await admit(ledger, *range(1200))
    broker = FakeBroker()
    async with enqueuing(ledger, broker, FakeWorker()):
        await until(lambda: len(broker.sent) >= 1000)
        await asyncio.sleep(0.3)
        assert len(broker.sent) == 1000
        for _ in range(10):
            await ledger.run(tasks.take, broker.held.pop(0), ledger.now(), 60.0, new_alone=False)
        await until(lambda: len(broker.sent) >= 1010)
        await asyncio.sleep(0.3)
    assert len(broker.sent) < 1050
    assert broker.sent == [name(number) for number in range(len(broker.sent))]  # the longest known first


async def test_a_rate_bounds_what_is_sent(ledger: Ledger) -> None:
    await admit(ledger, *range(100))
    broker = FakeBroker()
    async with enqueuing(ledger, broker, FakeWorker(), rate_per_s=20):
        began = time.monotonic()
        taken: list[str] = []
        while time.monotonic() - began < 2.0:
            while broker.held:
                taken.append(broker.held.pop())
                await ledger.run(tasks.take, taken[-1], ledger.now(), 60.0, new_alone=False)
            await asyncio.sleep(0.02)
        took_s = time.monotonic() - began
    assert 1 < len(taken) <= 20 * took_s + 2


async def test_what_the_broker_does_not_take_is_sent_when_it_is_back_and_nothing_twice(ledger: Ledger) -> None:
    await admit(ledger, *range(50))
    broker, worker = FakeBroker(), FakeWorker()
    broker.takes = 20
    async with enqueuing(ledger, broker, worker):
        await until(lambda: worker.outage.waiting_for == "the broker does not answer now")
        broker.takes = 10_000
        await until(lambda: len(broker.sent) == 50)
        await until(lambda: worker.outage.waiting_for is None)
    assert len(set(broker.sent)) == 50


async def test_a_broker_that_lost_everything_is_filled_again_within_ten_seconds(ledger: Ledger) -> None:
    await admit(ledger, *range(300))
    broker = FakeBroker()
    async with enqueuing(ledger, broker, FakeWorker()):
        await until(lambda: len(broker.held) == 300)
        broker.held.clear()
        began = time.monotonic()
        await until(lambda: len(broker.held) >= 300)
    assert time.monotonic() - began < 15  # 5 s of grace, 2 s between looks, and a busy machine
    assert sorted(broker.held) == [name(number) for number in range(300)]


async def test_in_a_broker_that_loses_nothing_what_workers_were_just_given_is_not_taken_for_lost(ledger: Ledger) -> None:
    """Each task is out of the broker for a moment before a worker's word of it is in the ledger; at any look some are. New pictures
    overtake the others."""
    await admit(ledger, *range(600))
    broker, ending = FakeBroker(), asyncio.Event()

    async def work(number: int) -> None:
        while not ending.is_set():
            given = next((one for one in broker.held if one in new), broker.held[0] if broker.held else None)
            if given is not None:
                broker.held.remove(given)
            await asyncio.sleep(0.1)
            if given is not None:
                await ledger.run(tasks.take, given, ledger.now(), 60.0, new_alone=False)

    new: set[str] = set()
    async with enqueuing(ledger, broker, FakeWorker()), asyncio.TaskGroup() as workers:
        await until(lambda: len(broker.held) == 600)
        with capture_logs() as logs:
            for number in range(6):
                workers.create_task(work(number))
            for number in range(1000, 1018):
                new.add(name(number))
                await admit(ledger, number, priority=1)
                await asyncio.sleep(0.5)
            ending.set()
    assert [entry for entry in logs if entry["event"] == "tasks_lost"] == []
    assert len(set(broker.sent)) == len(broker.sent)


async def test_a_task_that_is_lost_amid_others_is_sent_again_and_no_other(ledger: Ledger) -> None:
    await admit(ledger, *range(20))
    broker = FakeBroker()
    async with enqueuing(ledger, broker, FakeWorker()):
        await until(lambda: len(broker.held) == 20)
        lost = broker.held.pop(0)  # with a worker that died before it looked at it
        await until(lambda: len(broker.sent) > 20)
        await asyncio.sleep(0.2)
    assert broker.sent[20:] == [lost]


async def test_without_models_nothing_is_sent_and_it_is_said_why(ledger: Ledger) -> None:
    await admit(ledger, 1)
    broker, worker = FakeBroker(), FakeWorker()
    worker.away = ModelUnreachable("the model service cannot be reached")
    async with enqueuing(ledger, broker, worker):
        await until(lambda: worker.outage.waiting_for == "the model service cannot be reached")
        assert not broker.sent
        worker.away = None
        await until(lambda: broker.sent == [name(1)])
