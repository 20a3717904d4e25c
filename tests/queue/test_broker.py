"""What stands in the broker: image ids in the order of their urgency, and nothing that outlives its use."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from unittest import mock

import pytest
from pydantic import ValidationError

from core.errors import Unavailable
from tests.queue.rabbit import Rabbit
from tests.queue.rig import BrokerServer, why_not
from watcher.queue import place as places
from watcher.queue.place import BrokerPlace, QueueMissing
from watcher.queue.tasks import Task
from watcher.settings import WatcherSettings

pytestmark = pytest.mark.timeout(400)  # a node of RabbitMQ starts in seconds, or in minutes where others want the cores
needs_broker = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
DATABASE, QDRANT = "postgresql://user:hidden@database/imagesearch", "http://qdrant:6333"


@needs_broker
async def test_a_task_is_an_image_id_and_a_trace_and_the_most_urgent_comes_first(server: BrokerServer) -> None:
    from watcher.queue.broker import Broker

    async with Broker(BrokerPlace(server.url)) as broker:
        sent = [Task("suspect", -1), Task("again", -2), Task("first", 0), Task("second", 0), Task("prompt", 1)]
        assert await broker.send(sent) == 5
        assert await broker.waiting() == 5
        arguments = server.received()
        assert [image_id for image_id, _ in arguments] == ["prompt", "first", "second", "suspect", "again"]
        traces = [trace for _, trace in arguments]
        assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-03", trace) for trace in traces)
        assert len(set(traces)) == 5
        assert await broker.waiting() == 0


@needs_broker
@pytest.mark.parametrize("server", ["redis", pytest.param("rabbitmq", marks=pytest.mark.long)], indirect=True)
async def test_a_broker_that_is_away_takes_nothing_and_the_same_sender_goes_on_when_it_is_back(server: BrokerServer) -> None:
    from watcher.queue.broker import Broker

    async with Broker(BrokerPlace(server.url)) as broker:
        assert await broker.send([Task("one", 0)]) == 1
        server.end(signal.SIGKILL)
        assert await broker.send([Task("two", 0)]) == 0
        with pytest.raises(Unavailable, match="the broker does not answer"):
            await broker.waiting()
        server.start()
        kept = await broker.waiting()  # RabbitMQ has a disk, which the tests' Redis has not
        assert await broker.send([Task("two", 0)]) == 1
        assert [image_id for image_id, _ in server.received()] == ["one", "two"][1 - kept :]
        server.flush()
        await broker.waiting()  # as every two seconds
        assert await broker.send([Task("three", 0)]) == 1
        assert [image_id for image_id, _ in server.received()] == ["three"]


@needs_broker
async def test_a_broker_that_hangs_is_noticed_and_goes_on_when_it_wakes(
    server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watcher.queue import broker as of

    monkeypatch.setattr(of, "_SOCKET_TIMEOUT_S", 0.5)
    async with of.Broker(BrokerPlace(server.url)) as broker:
        assert await broker.send([Task("one", 0)]) == 1
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                assert await broker.send([Task("two", 0)]) == 0
                with pytest.raises(Unavailable):
                    await broker.waiting()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        async with asyncio.timeout(60):
            while not await broker.send([Task("three", 0)]):
                await asyncio.sleep(0.1)
        assert {"one", "three"} <= {image_id for image_id, _ in server.received()}


async def test_what_rabbitmq_refuses_by_its_own_word_is_told_without_the_password(rabbitmq: Rabbit) -> None:
    from watcher.queue.broker import Broker

    guests = {"hidden": "//", "guest": "/nowhere"}
    for (password, vhost), said in zip(guests.items(), ("ACCESS_REFUSED", "vhost nowhere not found"), strict=True):
        async with Broker(BrokerPlace(f"amqp://guest:{password}@127.0.0.1:{rabbitmq.port}{vhost}")) as broker:
            with pytest.raises(Unavailable, match=f"the broker refuses: .*{said}") as refused:
                await broker.waiting()
            assert "hidden" not in str(refused.value)
            assert await broker.send([Task("one", 0)]) == 0


@needs_broker
def test_rabbitmq_is_asked_for_a_queue_with_priorities_and_for_its_word_that_it_has_a_task() -> None:
    from watcher.queue.broker import _queue, _urgency, celery_of

    place = BrokerPlace("amqp://user@rabbit:5672//")
    assert _queue(place).queue_arguments == {"x-max-priority": 2}
    assert [_urgency(place, priority) for priority in (1, 0, -1, -2)] == [2, 1, 0, 0]
    assert [_urgency(BrokerPlace("redis://redis"), priority) for priority in (1, 0, -1, -2)] == [0, 1, 2, 2]
    settings = celery_of(place).conf
    assert settings.broker_transport_options["confirm_publish"]
    assert settings.result_backend is None


@pytest.mark.parametrize("missing", ["database_url", "qdrant_url"])
def test_a_broker_without_shared_state_is_refused_at_the_start(missing: str) -> None:
    shared = {"database_url": DATABASE, "qdrant_url": QDRANT, missing: None}
    with pytest.raises(ValidationError, match="BROKER_URL needs DATABASE_URL and QDRANT_URL"):
        WatcherSettings(broker_url="redis://:hidden@redis:6379/0", **shared)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["kafka://:hidden@broker", "amqp://user:hid/hidden@broker:5672/", "amqp://:hidden@", "redis://:hidden@redis:port/0"]
)
def test_a_broker_that_nobody_speaks_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValidationError, match="write redis://") as refused:
        WatcherSettings(broker_url=url, database_url=DATABASE, qdrant_url=QDRANT)
    assert "hidden" not in str(refused.value)


def test_the_password_is_shown_to_nobody() -> None:
    settings = WatcherSettings(broker_url="redis://:hidden@redis:6379/0", database_url=DATABASE, qdrant_url=QDRANT)
    assert "hidden" not in repr(settings)
    assert "hidden" not in repr(BrokerPlace("redis://:hidden@redis:6379/0"))


def test_without_celery_it_is_said_what_to_install() -> None:
    settings = WatcherSettings(broker_url="redis://redis", database_url=DATABASE, qdrant_url=QDRANT)
    with (
        mock.patch.object(places, "find_spec", return_value=None),
        pytest.raises(QueueMissing, match=r"pip install '.\[queue\]'"),
    ):
        _ = settings.broker


def test_without_a_broker_nothing_of_it_is_needed() -> None:
    assert WatcherSettings().broker is None
