"""The ledger's side of the queue: whatever the broker loses or repeats, an image is sent until it ended, and ingested by one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.errors import Reason
from core.sql.place import DatabasePlace
from watcher import editions, jobs, locations
from watcher.ledger import Ledger
from watcher.locations import Admission, FileStat
from watcher.queue import tasks
from watcher.queue.tasks import Demand, Task
from watcher.shared_ledger import SharedLedger

ANY = jobs.above(new_alone=False)
LEASE_S = 60.0


@pytest.fixture
async def ledger(database: DatabasePlace) -> AsyncIterator[Ledger]:
    async with SharedLedger(database) as opened:
        yield opened


def name(number: int) -> str:
    return f"{number:064x}"


async def admit(ledger: Ledger, *numbers: int, priority: int = 0) -> None:
    admissions = [
        Admission(f"{number}.png", FileStat(1, number, number + 1), name(number), float(number), priority) for number in numbers
    ]
    await ledger.run(locations.admit, admissions, ledger.now())


async def enter(ledger: Ledger, *, room: int = 100, most: int = 200, above: int = ANY) -> list[Task]:
    return await ledger.run(tasks.enter, Demand(room, most, above), ledger.now())


async def take(ledger: Ledger, number: int, *, new_alone: bool = False) -> jobs.Job | None:
    return await ledger.run(tasks.take, name(number), ledger.now(), LEASE_S, new_alone=new_alone)


async def test_an_image_is_sent_once_until_a_worker_has_it(ledger: Ledger) -> None:
    await admit(ledger, 1, 2, 3)
    assert await enter(ledger) == [Task(name(1), 0), Task(name(2), 0), Task(name(3), 0)]
    assert await enter(ledger) == []
    job = await take(ledger, 1)
    assert job is not None
    assert await enter(ledger) == []
    assert await ledger.run(jobs.postpone, job, 0.0)
    assert await enter(ledger) == [Task(name(1), 0)]


async def test_what_is_to_be_tried_again_later_is_sent_when_it_is_due(ledger: Ledger) -> None:
    await admit(ledger, 1)
    await enter(ledger)
    job = await take(ledger, 1)
    assert job is not None
    await ledger.run(jobs.count_attempt, job, ledger.now() + 0.3, crashed=False)
    assert await enter(ledger) == []
    assert await take(ledger, 1) is None  # a task from before
    await asyncio.sleep(0.35)
    assert await enter(ledger) == [Task(name(1), 0)]


@pytest.mark.parametrize("end", ["indexed", "failed", "gone", "running", "unknown"])
async def test_a_task_for_an_image_that_is_not_to_be_ingested_changes_nothing(ledger: Ledger, end: str) -> None:
    await admit(ledger, 1)
    if end == "gone":
        await ledger.run(locations.forget, ["1.png"], ledger.now())
    job = await take(ledger, 1) if end not in {"gone", "unknown"} else None
    if end == "failed":
        assert job is not None
        await ledger.run(jobs.reject, job, Reason.NOT_AN_IMAGE, "no picture", fingerprint="f", now=ledger.now())
    elif end == "indexed":
        assert job is not None
        assert await ledger.run(jobs.complete, job, jobs.Outcome("f", 1, 1, 0, 1), ledger.now())
    before = await _images(ledger)
    assert await take(ledger, 9 if end == "unknown" else 1) is None
    assert await _images(ledger) == before


async def test_of_two_workers_with_the_same_task_one_has_the_image(ledger: Ledger, database: DatabasePlace) -> None:
    numbers = list(range(1, 101))
    await admit(ledger, *numbers)
    await enter(ledger)
    async with SharedLedger(database) as other:
        found = await asyncio.gather(*(take(one, number) for number in numbers for one in (ledger, other)))
    assert sorted(job.image_id for job in found if job is not None) == [name(number) for number in numbers]
    assert await ledger.run(tasks.count) == 0


async def test_a_new_picture_is_sent_though_the_broker_has_its_fill_of_a_backfill(ledger: Ledger) -> None:
    await admit(ledger, *range(1, 60))
    assert len(await enter(ledger, room=40)) == 40
    await admit(ledger, 100, priority=1)
    assert await enter(ledger, room=0) == [Task(name(100), 1)]
    assert await enter(ledger, room=0) == []
    await admit(ledger, 101, priority=1)
    assert (await enter(ledger, room=5))[0] == Task(name(101), 1)


async def test_what_the_broker_lost_is_sent_again_in_the_order_in_which_it_would_have_been_handed_out(ledger: Ledger) -> None:
    await admit(ledger, 1, 2)
    await enter(ledger)
    await admit(ledger, 3, priority=-2)
    await admit(ledger, 4, priority=1)
    await enter(ledger)
    assert await ledger.run(tasks.count_out) == 4
    out = await ledger.run(tasks.first_out, 10)
    assert [sent.image_id for sent in out] == [name(4), name(1), name(2), name(3)]
    assert await ledger.run(tasks.first_out, 2) == out[:2]
    await take(ledger, 1)
    now = ledger.now() + 1
    assert await ledger.run(tasks.renew, out[:3], now) == [Task(name(4), 1), Task(name(2), 0)]
    assert [sent.image_id for sent in await ledger.run(tasks.first_out, 10)] == [name(4), name(2), name(3)]
    assert min(sent.sent_at for sent in (await ledger.run(tasks.first_out, 2))) == now
    assert await ledger.run(tasks.count) == 3


async def test_a_task_whose_image_ended_otherwise_is_not_taken_for_lost(ledger: Ledger) -> None:
    await admit(ledger, 1, 2)
    await enter(ledger)
    await ledger.run(locations.forget, ["1.png"], ledger.now())
    assert await ledger.run(jobs.claim_image, name(2), ledger.now(), LEASE_S) is not None
    assert await ledger.run(tasks.count_out) == 0
    assert await ledger.run(tasks.count) == 0


async def test_tasks_leave_with_their_image(ledger: Ledger) -> None:
    await admit(ledger, 1)
    await enter(ledger)
    await ledger.run(locations.forget, ["1.png"], ledger.now())
    assert await ledger.run(jobs.remove, name(1))
    assert await ledger.run(tasks.count) == 0


async def test_what_the_broker_did_not_take_is_sent_with_the_next(ledger: Ledger) -> None:
    await admit(ledger, 1, 2)
    sent = await enter(ledger)
    await ledger.run(tasks.unsent, [sent[1].image_id])
    assert await enter(ledger) == [sent[1]]


async def test_while_a_change_of_models_stands_still_only_new_images_are_taken(ledger: Ledger) -> None:
    await admit(ledger, 1, 2)
    job = await take(ledger, 1)
    assert job is not None
    assert await ledger.run(jobs.complete, job, jobs.Outcome("old", 1, 1, 0, 1), ledger.now())
    await ledger.run(jobs.requeue_others, "new")
    above = jobs.above(new_alone=True)
    assert await enter(ledger, above=above) == [Task(name(2), 0)]
    assert await take(ledger, 1, new_alone=True) is None
    assert await enter(ledger) == [Task(name(1), jobs.AGAIN_PRIORITY)]
    assert await take(ledger, 1) is not None
    assert await ledger.run(editions.course) is None


async def _images(ledger: Ledger) -> list[tuple[object, ...]]:
    return await ledger.run(lambda connection: [tuple(row) for row in connection.execute("SELECT * FROM images").fetchall()])
